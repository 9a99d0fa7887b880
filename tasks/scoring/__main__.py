"""Score a file of detections without a model or a study; prints one line of JSON.

    python -m tasks.scoring coco --gt instances_val2017.json --dt detections.json     # the twelve COCO numbers
    python -m tasks.scoring lvis --gt lvis_v1_val.json --dt detections.json           # also rare, common, frequent

Detections are COCO's: [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...] in pixels. A file that
cannot be scored ends with exit code 2 and names the item.
"""

import argparse
import json
import sys
from pathlib import Path

from tasks.scoring.files import ScoringError, coco, lvis

COMMANDS = {"coco": coco, "lvis": lvis}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.scoring", description=__doc__.splitlines()[0])
    parser.add_argument("protocol", choices=COMMANDS)
    parser.add_argument("--gt", type=Path, required=True, help="the labels")
    parser.add_argument("--dt", type=Path, required=True, help="the detections")
    given = parser.parse_args(arguments)
    try:
        print(json.dumps(COMMANDS[given.protocol](given.gt, given.dt)))
    except ScoringError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
