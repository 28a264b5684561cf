"""Options that comparisons have in common."""

from pathlib import Path
from typing import Annotated

import typer

JsonFile = Annotated[Path | None, typer.Option("--json", help="Where to write all figures.")]
Plot = Annotated[Path | None, typer.Option(help="Where to draw them (.png, .svg).")]
