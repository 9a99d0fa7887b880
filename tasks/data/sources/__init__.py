"""Where labelled pictures and problems in words come from: a reader for each `dataset.source`."""

from tasks.data.drafts import Reader
from tasks.data.sources.coco import read_coco, read_lvis
from tasks.data.sources.folders import read_folder
from tasks.data.sources.jsonl import read_jsonl_rows
from tasks.data.sources.lisa import read_lisa
from tasks.data.sources.lists import read_aircraft, read_cars, read_flowers, read_pets
from tasks.data.sources.maths import read_mathqa, read_reft, read_svamp
from tasks.data.sources.openai import read_openai
from tasks.data.sources.problems import read_gsm8k, read_problems
from tasks.data.sources.rows import read_hf, read_visual_rft
from tasks.data.sources.voc import read_voc
from tasks.data.sources.yolo import read_yolo

READERS: dict[str, Reader] = {
    "coco": read_coco,
    "lvis": read_lvis,
    "voc": read_voc,
    "yolo": read_yolo,
    "folder": read_folder,
    "flowers102": read_flowers,
    "pets37": read_pets,
    "aircraft": read_aircraft,
    "cars196": read_cars,
    "lisa": read_lisa,
    "visual_rft": read_visual_rft,
    "jsonl": read_jsonl_rows,
    "hf": read_hf,
    "gsm8k": read_gsm8k,
    "svamp": read_svamp,
    "mathqa": read_mathqa,
    "reft": read_reft,
    "problems": read_problems,
    "openai": read_openai,
}
