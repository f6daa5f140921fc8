"""Sphinx' configuration. ``tox run -e docs`` builds the documentation, with warnings as errors."""

from __future__ import annotations

project = "django-mailqueue-backend"
author = "The django-mailqueue-backend maintainers"
copyright = "the django-mailqueue-backend maintainers"

extensions = ["myst_parser"]
root_doc = "index"
nitpicky = True

#: Headings of these levels can be the target of a link, with the same anchors as on GitHub.
myst_heading_anchors = 4

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["style.css"]
