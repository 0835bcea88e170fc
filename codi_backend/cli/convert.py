"""`codi convert`: write checkpoint files as one .safetensors a part."""

from __future__ import annotations

import argparse

from ..media.output_folder import check_folder
from .arguments import CHECKPOINTS, file_path, folder_path
from .extras import MODEL_MODULES, require


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("convert", help="write checkpoint files as one .safetensors a part")
    p.add_argument("files", nargs="+", type=file_path, metavar="FILE", help=CHECKPOINTS)
    p.add_argument("--out", type=folder_path, required=True)
    p.add_argument(
        "--dtype",
        choices=("fp32", "fp16", "bf16", "fp8", "int8"),
        help="precision of the weights (default: as stored); fp8 and int8 quantise the large layers of diffusers and "
        "prompt encoders, and leave the rest in fp16",
    )
    p.add_argument("--only", nargs="+", metavar="PART", help="parts to convert, as in diffuser.image (default: all)")
    p.add_argument("--force", action="store_true", help="overwrite files")
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    check_folder(options.out)
    require(*MODEL_MODULES)
    from ..checkpoints import convert as conversion

    for path in conversion.convert(options.files, options.out, options.dtype, options.only, options.force):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB", flush=True)
