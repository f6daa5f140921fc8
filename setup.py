"""Everything is in pyproject.toml; this answers those who still call setup.py."""

import sys

if sys.argv[1:] == ["--version"]:
    # No setuptools is needed for this: Python >= 3.12 comes with none.
    from mailqueue_backend import __version__

    print(__version__)
else:
    import setuptools

    if int(setuptools.__version__.partition(".")[0]) < 77:
        raise SystemExit("This needs setuptools 77 or newer; or run: python -m pip install .")
    setuptools.setup()
