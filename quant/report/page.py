# SPDX-License-Identifier: Apache-2.0
"""Templates of this folder, HTML and SVG, filled in; what is not a tag is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).resolve().parent),
    undefined=StrictUndefined,
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """Return the text of a template; a value that it lacks is an error."""
    return _TEMPLATES.get_template(template).render(**values)
