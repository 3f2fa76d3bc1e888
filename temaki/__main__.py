"""``python -m temaki``: the command, where the script's folder is on no path, as on AWS Lambda."""

from temaki.cli import main

if __name__ == "__main__":
    main()
