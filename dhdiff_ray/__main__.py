"""``python -m dhdiff_ray`` is the command ``dhdiff-ray``."""

from dhdiff_ray.cli.app import main

if __name__ == "__main__":
    main()
