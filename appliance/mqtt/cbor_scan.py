"""What a CBOR payload would become, judged by its structure before anything of it is built. Pure.

CBOR's tags let few bytes stand for many: references (25/256, 28/29) multiply what they name, a decimal fraction (tags 4
and 5) or a bignum (2 and 3) makes numbers that take seconds to write out. What JSON could hold is let through, and
bytes and times (tags 0 and 1), since they may be echoed. Source: RFC 8949, sections 3 and 3.4.
"""

from appliance.budget import KEY, LIST, OBJECT, VALUE

_DEEPEST = 32
_LONGEST_TIME = 64  # bytes of the text of a time
_SELF_DESCRIBED = b"\xd9\xd9\xf7"  # tag 55799, which says that it is CBOR (3.4.6)
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_BREAK = 0xFF
_ENDLESS = 31  # additional information of what a break ends
_ARGUMENT = {24: 1, 25: 2, 26: 4, 27: 8}  # additional information -> bytes of the argument behind it


def _leaf_size(first: int) -> int:
    """Return the bytes of an item that contains none and tells its size by its first byte; 0 for every other."""
    major, info = first >> 5, first & 31
    if major in (_UNSIGNED, _NEGATIVE):
        return 1 if info < 24 else 1 + _ARGUMENT.get(info, -1)
    if major in (_BYTES, _TEXT):
        return 1 + info if info < 24 else 0
    if major == _SIMPLE:  # false, true, null, undefined; floats
        return 1 if 20 <= info <= 23 else 1 + _ARGUMENT[info] if 25 <= info <= 27 else 0
    return 0


_LEAF = bytes(map(_leaf_size, range(256)))


def cost(payload: bytes) -> int:
    """Return the bytes that a payload takes at most once it is decoded.

    Raises ValueError for what is not one well-formed item, for a tag that is not taken, and for deep nesting.
    """
    leaf = _LEAF
    total = 5 * len(payload) + VALUE  # itself, and texts of up to four bytes a character
    place = len(_SELF_DESCRIBED) if payload.startswith(_SELF_DESCRIBED) else 0
    lacking: list[int] = []  # items that the containers around lack
    left = 1  # items that the innermost lacks; below zero where a break ends it, -1 at its beginning
    try:
        while True:
            while left == 0:
                if not lacking:
                    if place != len(payload):
                        raise ValueError("its length is another one than it says")
                    return total
                left = lacking.pop()
            first = payload[place]
            left -= 1
            if size := leaf[first]:
                place += size
            elif first == _BREAK:
                if left > -2:
                    raise ValueError("a break where nothing is open")
                place += 1
                total += (-2 - left) * (VALUE + KEY)
                left = 0
            elif _ARRAY <= first >> 5 <= _MAP:
                count, place = _count(payload, place)
                if len(lacking) >= _DEEPEST:
                    raise ValueError("it nests too deep")
                lacking.append(left)
                left = count
                total += max(0, count) * (VALUE + KEY) + OBJECT if first >> 5 == _MAP else max(0, count) * VALUE + LIST
            else:
                place = _end(payload, place)
                total += VALUE
    except IndexError:
        raise ValueError("it ends too early") from None


def _count(payload: bytes, place: int) -> tuple[int, int]:
    """Return how many items the container at `place` announces, -1 for until a break, and where they begin."""
    if payload[place] & 31 == _ENDLESS:
        return -1, place + 1
    count, begin = _argument(payload, place)
    if payload[place] >> 5 == _MAP:
        count *= 2
    if count > len(payload) - begin:
        raise ValueError(f"it announces {count} items, more than it has bytes")
    return count, begin


def _end(payload: bytes, place: int) -> int:
    """Return where a long text, or a tag with what it is of, ends."""
    first = payload[place]
    major = first >> 5
    if major == _TAG:
        return _end_of_tag(payload, place)
    if major not in (_BYTES, _TEXT):
        raise ValueError(f"byte {first:#x} begins nothing that is taken")
    if first & 31 != _ENDLESS:
        return _end_of_string(payload, place)
    place += 1
    while payload[place] != _BREAK:
        if payload[place] >> 5 != major or payload[place] & 31 == _ENDLESS:
            raise ValueError("a piece of a text is no text")
        place = _end_of_string(payload, place)
    return place + 1


def _end_of_string(payload: bytes, place: int) -> int:
    """Return where a text or bytes of a stated length end."""
    length, begin = _argument(payload, place)
    if length > len(payload) - begin:
        raise ValueError(f"it announces {length} bytes, more than it has")
    return begin + length


def _end_of_tag(payload: bytes, place: int) -> int:
    """Return where a time ends, the one thing that a tag is taken of."""
    number, begin = _argument(payload, place)
    first = payload[begin]
    if number == 0 and first >> 5 == _TEXT and first & 31 != _ENDLESS:
        end = _end_of_string(payload, begin)
        if end - begin <= _LONGEST_TIME:
            return end
        raise ValueError("a time is too long")
    is_number = first >> 5 in (_UNSIGNED, _NEGATIVE) or (first >> 5 == _SIMPLE and first & 31 >= 25)
    if number == 1 and is_number and _LEAF[first]:
        return begin + _LEAF[first]
    raise ValueError(f"it has the tag {number}, which is not taken")


def _argument(payload: bytes, place: int) -> tuple[int, int]:
    """Return the argument of the item at `place`, and where it ends."""
    info = payload[place] & 31
    if info < 24:
        return info, place + 1
    if info not in _ARGUMENT:
        raise ValueError(f"a length of kind {info}")
    end = place + 1 + _ARGUMENT[info]
    if end > len(payload):
        raise IndexError
    return int.from_bytes(payload[place + 1 : end], "big"), end
