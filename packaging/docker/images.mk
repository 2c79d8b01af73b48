# Container images: `make images`, `make images-test`, `make image-twice`. Each image needs a Docker engine with BuildKit, arm64 on another
# processor also an emulator (qemu-user 8 or newer in binfmt_misc). Variables, all with defaults:
#   DOCKER               the docker command
#   IMAGE                name of the image
#   BASE, BASE_ARM64     base images; any with Debian's libraries, Python >= 3.11, pip and venv
#   IMAGE_BUILD_FLAGS    more flags for docker build, as --network=host
DOCKER ?= docker
IMAGE ?= edge-inference-appliance
BASE ?= python:3.12-slim-bookworm
BASE_ARM64 ?= $(BASE)
IMAGE_BUILD_FLAGS ?=
IMAGE_DIR := dist/images
IMAGE_VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# The date of the image: that of the last commit, so that a commit gives one image. Where there is no git, 1980.
IMAGE_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),315532800)
IMAGE_CREATED := $(shell date -u -d @$(IMAGE_EPOCH) +%Y-%m-%dT%H:%M:%SZ)
# Recursive: only a build asks git what was changed since the commit.
IMAGE_REVISION = $(or $(shell git describe --always --abbrev=40 --exclude '*' --dirty 2>/dev/null),unknown)
IMAGE_FILE := $(IMAGE_DIR)/edge-inference-appliance-$(IMAGE_VERSION)

.PHONY: images image-amd64 image-arm64 image-twice image-twice-amd64 image-twice-arm64 images-test image-test-amd64 image-test-arm64

images: image-amd64 image-arm64
	$(PYTHON) packaging/docker/archive.py join $(IMAGE_FILE).oci.tar $(IMAGE_FILE)-linux-amd64.tar.gz $(IMAGE_FILE)-linux-arm64.tar.gz
	@ls -l $(IMAGE_DIR)

image-amd64: IMAGE_SOURCE := packaging/docker/Dockerfile
image-amd64: IMAGE_BASE = $(BASE)
image-arm64: IMAGE_SOURCE := Dockerfile.arm64
image-arm64: IMAGE_BASE = $(BASE_ARM64)

image-amd64 image-arm64: image-%:
	@mkdir -p $(IMAGE_DIR)
	DOCKER_BUILDKIT=1 $(DOCKER) build $(IMAGE_BUILD_FLAGS) -f $(IMAGE_SOURCE) -t $(IMAGE):$(IMAGE_VERSION)-$* \
	  --build-arg BASE=$(IMAGE_BASE) --build-arg VERSION=$(IMAGE_VERSION) \
	  --build-arg REVISION=$(IMAGE_REVISION) --build-arg CREATED=$(IMAGE_CREATED) .
	$(DOCKER) save -o $(IMAGE_FILE)-$*.saved $(IMAGE):$(IMAGE_VERSION)-$*
	$(PYTHON) packaging/docker/archive.py load $(IMAGE_FILE)-$*.saved $(IMAGE_FILE)-linux-$*.tar.gz --epoch $(IMAGE_EPOCH)
	@rm $(IMAGE_FILE)-$*.saved
	$(PYTHON) packaging/sbom/image.py $(IMAGE_FILE)-linux-$*.tar.gz > $(IMAGE_FILE)-linux-$*.cdx.json

# The same commit gives the same bytes: builds again, without the engine's cache, and compares.
image-twice: image-twice-amd64
image-twice-amd64 image-twice-arm64: image-twice-%: image-%
	mv $(IMAGE_FILE)-linux-$*.tar.gz $(IMAGE_FILE)-$*-first.tar.gz
	$(MAKE) image-$* IMAGE_BUILD_FLAGS="$(IMAGE_BUILD_FLAGS) --no-cache"
	cmp $(IMAGE_FILE)-$*-first.tar.gz $(IMAGE_FILE)-linux-$*.tar.gz
	@rm $(IMAGE_FILE)-$*-first.tar.gz

# They run what `make images` left in dist/images: on another processor what every image must do, here all of it.
images-test: image-test-amd64 image-test-arm64

image-test-amd64: IMAGE_TESTS := tests/heavy/images
image-test-amd64: IMAGE_BASE = $(BASE)
image-test-arm64: IMAGE_TESTS := tests/heavy/images/test_image.py
image-test-arm64: IMAGE_BASE = $(BASE_ARM64)

image-test-amd64 image-test-arm64: image-test-%: $(VENV)/.dev
	sh tests/heavy/system-packages.sh
	DOCKER="$(DOCKER)" IMAGE_ARCHIVE=$(IMAGE_FILE)-linux-$*.tar.gz IMAGE_BASE=$(IMAGE_BASE) \
	  $(BIN)/python -m pytest -o pythonpath="tests/heavy tests/heavy/images" --timeout=900 -rA $(IMAGE_TESTS) $(IMAGE_TEST_FLAGS)
