"""The command line: fit, follow, evaluate, verify, synthesize, pretrain, export."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy_captcha.errors import CaptchaError, DatasetError
from scrapy_captcha.versions import REPORT, roll_back
from trainer.arguments import (
    ARCHITECTURES,
    above_zero,
    architecture,
    characters,
    class_weights,
    groups,
    lengths,
    seed,
    share,
    weight,
    weights,
    whole,
)
from trainer.quiet import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BAD_INPUT, NOT_BETTER = 2, 3
ALNUM = "0123456789abcdefghijklmnopqrstuvwxyz"


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    options = parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except BrokenPipeError:
        raise
    except (CaptchaError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
    except ModuleNotFoundError as e:
        if e.name not in {"tensorflow", "keras"}:
            raise
        print(
            f"error: {e.name} is not installed; training needs it: "
            "pip install 'scrapy-captcha[train]'",
            file=sys.stderr,
        )
    return BAD_INPUT


def run_fit(options: argparse.Namespace) -> int:
    """Train on labelled images and write a new version of a bundle, if it is better."""
    if options.rollback:
        print(f"current  {roll_back(options.out)}")
        return 0
    from scrapy_captcha.page import write  # noqa: PLC0415
    from trainer.fit import fit  # noqa: PLC0415
    from trainer.outcome import summary  # noqa: PLC0415
    from trainer.plan import Options, check_out  # noqa: PLC0415
    from trainer.progress import for_output  # noqa: PLC0415

    report = options.out / REPORT if options.report is None else Path(options.report)
    wanted = Options(
        datasets=tuple(options.dataset),
        out=options.out,
        base=options.base,
        minutes=options.minutes,
        seed=options.seed,
        architecture=options.architecture,
        charset=options.charset,
        lengths=options.length,
        head_weights=options.head_weights,
        epochs=options.epochs,
        class_weights=options.class_weights,
        label_smoothing=options.label_smoothing,
        replay=options.replay,
        rejected=options.rejections,
        report=None if options.report == "none" else report,
    )
    try:
        with for_output() as reporter:
            fitted = fit(wanted, reporter)
        page = fitted.report.to_html() if wanted.report else ""
        check_out(options.out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was written") from None
    with uninterrupted():
        if not fitted.promoted:
            fitted.checkpoint.remove()
            print(summary(fitted, None))
            return NOT_BETTER
        lines = summary(fitted, fitted.packed.write(options.out))
        fitted.checkpoint.remove()
        if wanted.report:
            try:
                write(wanted.report, page)
                lines += f"\nreport   {wanted.report}"
            except DatasetError as e:  # the bundle is there all the same
                lines += f"\n{e}"
        print(lines)
    return 0


def run_follow(options: argparse.Namespace) -> int:
    """Train beside a crawl, as its requests come in."""
    from trainer.follow import follow  # noqa: PLC0415

    return follow(options.base, options.rejections)


def run_evaluate(options: argparse.Namespace) -> int:
    """Measure a bundle on labelled images."""
    from scrapy_captcha.page import check_place, write  # noqa: PLC0415
    from trainer.evaluate import evaluate  # noqa: PLC0415
    from trainer.report import of_evaluation  # noqa: PLC0415

    if options.html:
        check_place(options.html)
    limits = {"charset": options.charset, "length": options.length, "merge": options.merge}
    found = evaluate(options.dataset, options.model, **limits)
    print(json.dumps(found.as_dict()) if options.json else found.as_table())
    if options.html:
        settings = {"datasets": ", ".join(options.dataset), **limits}
        write(options.html, of_evaluation(found, settings).to_html())
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Take a model out of its bundle."""
    from trainer.export import export  # noqa: PLC0415
    from trainer.quiet import import_tensorflow  # noqa: PLC0415

    if options.format == "onnx":
        import_tensorflow()
    print(export(options.model, options.out, options.format))
    return 0


def run_synthesize(options: argparse.Namespace) -> int:
    """Write synthetic captchas."""
    from trainer import synthesis  # noqa: PLC0415

    if not options.sheet and not options.out:
        print("error: expected --out, --sheet or both", file=sys.stderr)
        return BAD_INPUT
    task = {"charset": options.charset, "length": options.length}
    if options.sheet:
        synthesis.check_sheet(options.sheet)
        synthesis.contact_sheet(options.sheet, options.seed, **task)
    if options.out:
        synthesis.write_images(options.out, options.count, options.seed, **task)
    return 0


def run_pretrain(options: argparse.Namespace) -> int:
    """Train a bundle on synthetic captchas alone."""
    from trainer.plan import check_out  # noqa: PLC0415
    from trainer.quiet import import_tensorflow  # noqa: PLC0415

    check_out(options.out)
    import_tensorflow()
    from trainer.pretrain import pretrain  # noqa: PLC0415

    pretrain(
        out=options.out,
        minutes=options.minutes,
        seed=options.seed,
        architecture=options.architecture,
        charset=options.charset,
        length=options.length,
        workers=options.workers,
        base=options.base,
    )
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Check a harvested dataset and mend what can be mended."""
    from scrapy_captcha.naming import shown  # noqa: PLC0415
    from scrapy_captcha.verify import verify  # noqa: PLC0415

    found = asdict(verify(options.dataset))
    notes = found.pop("notes")
    print(", ".join(f"{name} {count}" for name, count in found.items()))
    print("\n".join(map(shown, notes or ["nothing to mend"])))
    return BAD_INPUT if found["failed"] else 0


BUNDLE_HELP = "a shipped name (alnum4), or a bundle's folder (models/mysite)"
DATASET_HELP = (
    "folders or zips of LABEL.png or LABEL_x.png, or folders that a crawl filled "
    "(captchas/SITE, or captchas for all sites)"
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train, measure and export the captcha reader.",
        epilog="Exit codes: 0 done, 2 bad input (no bundle is written), 3 trained, but not better "
        "than what is there (no bundle is written), 130 interrupted.",
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    _add_fit(commands)

    follow = _command(commands, "follow", run_follow, "train beside a crawl, which starts this")
    follow.add_argument("--base", metavar="BUNDLE", help=f"prepare to start from {BUNDLE_HELP}")
    _add_rejections(follow)

    evaluate = _command(commands, "evaluate", run_evaluate, "measure a bundle on labelled images")
    evaluate.add_argument(
        "--dataset", nargs="+", required=True, metavar="DIR_OR_ZIP", help=DATASET_HELP
    )
    evaluate.add_argument("--model", required=True, metavar="BUNDLE", help=BUNDLE_HELP)
    evaluate.add_argument("--charset", type=characters, help="read these characters only")
    evaluate.add_argument("--length", type=whole, help="read so many characters")
    evaluate.add_argument(
        "--merge",
        type=groups,
        default=(),
        metavar="0o,1il",
        help="count these look-alikes as one, in a second exact match",
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.add_argument("--html", type=Path, metavar="FILE", help="write a report, too")

    verify = _command(commands, "verify", run_verify, "check and mend what a crawl stored")
    verify.add_argument("dataset", type=Path, metavar="DATASET")

    synthesize = _command(commands, "synthesize", run_synthesize, "draw synthetic captchas")
    synthesize.add_argument("--out", type=Path, metavar="DIR", help="write LABEL_number.png here")
    synthesize.add_argument("--count", type=whole, default=100, help="how many (default: 100)")
    synthesize.add_argument("--sheet", type=Path, metavar="FILE", help="write a contact sheet here")
    synthesize.add_argument("--seed", type=seed, default=0)
    _add_task(synthesize)

    pretrain = _command(commands, "pretrain", run_pretrain, "train a base on synthetic captchas")
    pretrain.add_argument("--out", type=Path, required=True, metavar="BUNDLE")
    pretrain.add_argument("--minutes", type=above_zero, required=True)
    pretrain.add_argument("--seed", type=seed, default=0)
    _add_architecture(pretrain)
    pretrain.add_argument(
        "--base", metavar="BUNDLE", help="start from a bundle, perhaps of a wider network"
    )
    pretrain.add_argument(
        "--workers", type=whole, default=1, help="processes that draw (default: 1)"
    )
    _add_task(pretrain)

    export = _command(commands, "export", run_export, "take a model out of its bundle")
    export.add_argument("--model", required=True, metavar="BUNDLE", help=BUNDLE_HELP)
    export.add_argument("--out", type=Path, required=True, metavar="DIR")
    export.add_argument("--format", choices=("tflite", "keras", "onnx"), default="tflite")
    return top


def _add_fit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fit = _command(commands, "fit", run_fit, "teach a bundle a site's captchas")
    does = fit.add_mutually_exclusive_group(required=True)
    does.add_argument("--dataset", nargs="+", metavar="DIR_OR_ZIP", help=DATASET_HELP)
    does.add_argument(
        "--rollback", action="store_true", help="train nothing, go back to the version before"
    )
    fit.add_argument(
        "--base", metavar="BUNDLE", help=f"start from {BUNDLE_HELP}; else from scratch"
    )
    fit.add_argument(
        "--out", type=Path, required=True, metavar="BUNDLE", help="add a version to this folder"
    )
    fit.add_argument("--minutes", type=above_zero, default=3.0, help="at most (default: 3)")
    fit.add_argument("--seed", type=seed, default=0)
    _add_architecture(fit)
    fit.add_argument(
        "--charset",
        type=characters,
        help="characters to read (default: the base's, or the labels')",
    )
    fit.add_argument(
        "--length", type=lengths, help="4, or 3-8 (default: the base's, or the labels')"
    )
    fit.add_argument("--head-weights", type=weights, help="of the positions, like 1,1.2,1.2,1")
    fit.add_argument(
        "--class-weights",
        type=class_weights,
        metavar="none|balanced|FILE",
        help="of the characters: the same, rare ones higher, or from a JSON file (default: none)",
    )
    fit.add_argument(
        "--label-smoothing",
        type=share,
        default=0.05,
        metavar="SHARE",
        help="of a label that goes to all characters (default: 0.05)",
    )
    fit.add_argument(
        "--replay",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="of the images that are synthetic (default: 0)",
    )
    _add_rejections(fit)
    fit.add_argument("--epochs", type=whole, help="passes over the images (default: as needed)")
    fit.add_argument(
        "--report",
        metavar="FILE|none",
        help=f"where the report goes (default: {REPORT} in the bundle's folder)",
    )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    added.set_defaults(command=command)
    return added


def _add_rejections(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--rejections",
        type=weight,
        default=0.0,
        metavar="WEIGHT",
        help="of what rejected answers say, beside the confirmed ones (default: 0)",
    )


def _add_architecture(command: argparse.ArgumentParser) -> None:
    names = "; ".join(f"{name} ({what})" for name, what in ARCHITECTURES.items())
    command.add_argument(
        "--architecture",
        type=architecture,
        metavar="NAME",
        help=f"with --base by default the base's, else one of {names}",
    )


def _add_task(command: argparse.ArgumentParser) -> None:
    command.add_argument("--charset", type=characters, default=ALNUM)
    command.add_argument("--length", type=lengths, default=(4, 4), help="4 (default), or 3-8")
