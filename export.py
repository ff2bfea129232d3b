"""Export a checkpoint to ONNX: on a CPU it then scores faster, and without importing torch.

    python export.py AASIST
    python export.py exp_result/LA_AASIST_ep100_bs24/weights/swa.pth --onnx swa.onnx
    python export.py AASIST --int8 --score_set dev.txt

By default the file goes into the cache where `--engine auto` looks for it. It carries the model's card: name, training
data, threshold, calibration. Nothing is written when its logits differ from torch's by more than 1e-4, or when int8
moves the EER by more than 0.05 points.
"""

from pathlib import Path

from common.command import Parser, run
from common.escaping import printable
from scoring.int8_export import export_int8
from scoring.model_card import ModelCard
from scoring.onnx_export import export_onnx
from scoring.onnx_files import exported_path
from scoring.weights import KNOWN, locate


def parse_arguments():
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", help=f"a checkpoint (.pth), or one of {', '.join(KNOWN)}")
    add("--onnx", metavar="OUT", help="file to write (default: the cache of --engine auto)")
    add("--int8", action="store_true", help="quantise to int8; needs --score_set")
    add("--score_set", metavar="LIST", help="text file of lines `path label` (bonafide, spoof): the dev set")
    args = parser.parse_args()
    if args.int8 != bool(args.score_set):
        parser.error("--int8 and --score_set go together")
    if args.onnx and not args.onnx.endswith(".onnx"):
        parser.error(f"--onnx {args.onnx} does not end in .onnx")
    return args


def main() -> None:
    args = parse_arguments()
    path = locate(args.checkpoint)

    from utils import load_model

    model, checkpoint = load_model(path)
    card, precision = ModelCard.of(checkpoint, path), "int8" if args.int8 else "fp32"
    out = Path(args.onnx or exported_path(card.sha256, precision))
    if args.int8:
        check = export_int8(model, card, Path(args.score_set), out)
    else:
        check = f"largest difference from torch {export_onnx(model, card, out):.1e}"
    print(f"{printable(out)}  {out.stat().st_size / 2**20:.2f} MiB  {precision}  {check}")


if __name__ == "__main__":
    run(main)
