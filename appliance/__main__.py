"""`python -m appliance`: the command `appliance`, where its script is on no PATH."""

from appliance.cli import main

if __name__ == "__main__":
    main()
