"""The section `dataset` of `params.yaml` for data in files: one class a source, told apart by `source`.

`train`, `val` and `test` each hold the paths of one split, in the form of the source's `*Files` class. Paths of
pictures inside a data file are relative to its picture folder and must stay in it.
"""

from typing import Generic, Literal, TypeVar

from tasks.schema.base import Count, Section, Share


class CocoFiles(Section):
    """An instances JSON and the folder that its `file_name`s start from. For `lvis` the names come from `coco_url`
    (train2017/000000000009.jpg), so `images` is the folder that holds train2017 and val2017.
    """

    annotations: str
    images: str


class VocFiles(Section):
    """Pascal VOC: a folder of XML, a folder of pictures and, if not all XML is meant, a list such as
    ImageSets/Main/trainval.txt (an id a line).
    """

    annotations: str
    images: str
    list: str | None = None


class YoloFiles(Section):
    """Darknet / Ultralytics: pictures, a .txt of the same name for each, and data.yaml (its `names`) or a .txt with a
    name a line. A picture without .txt shows nothing.
    """

    images: str
    labels: str
    names: str


class FolderFiles(Section):
    """A folder with a folder for each class."""

    images: str


class FlowersFiles(Section):
    """Oxford Flowers102: `root` holds jpg/, imagelabels.mat and setid.mat; `names` is a file with a name a line,
    since the data set has none.
    """

    root: str
    split: Literal["train", "val", "test"]
    names: str


class PetsFiles(Section):
    """Oxford-IIIT Pets: `root` holds images/ and annotations/{list,trainval,test}.txt."""

    root: str
    list: Literal["list", "trainval", "test"]


class AircraftFiles(Section):
    """FGVC-Aircraft: `root` is its `data` folder with images/ and images_variant_{train,val,trainval,test}.txt."""

    root: str
    split: Literal["train", "val", "trainval", "test"]


class CarsFiles(Section):
    """Cars196: devkit/cars_train_annos.mat (or cars_test_annos_withlabels.mat), devkit/cars_meta.mat, pictures."""

    annotations: str
    meta: str
    images: str


class LisaFiles(Section):
    """LISA's ReasonSeg: a folder of name.jpg + name.json."""

    images: str


class RowsFiles(Section):
    """Visual-RFT's rows (image, problem, solution): a parquet file, a folder of them or a `save_to_disk` folder; of a
    DatasetDict, the split `split`.
    """

    rows: str
    split: str = "train"


class JsonlFiles(Section):
    """Our own rows, one picture a line, as `tasks.data.sources.jsonl` describes them."""

    rows: str
    images: str


class HfFiles(Section):
    """Any Hugging Face data set: a hub id (then pin `revision`), a local folder or a `save_to_disk` folder, and which
    column holds what. `label` is a class (ClassLabel or text); `objects` a struct with the lists `bbox` and `category`,
    or a list of such structs; `instruction` a text that the one box `box` answers. Boxes are in pixels.
    """

    path: str
    split: str
    name: str | None = None
    revision: str | None = None
    image: str = "image"
    label: str | None = None
    objects: str | None = None
    bbox: str = "bbox"
    category: str = "category"
    instruction: str | None = None
    box: str = "bbox"
    box_format: Literal["xywh", "xyxy"] = "xywh"


class Gsm8kFiles(Section):
    """GSM8K's train.jsonl or test.jsonl."""

    rows: str


class SvampFiles(Section):
    """SVAMP.json, or a part of it. Of the equation becomes a chain, or a program."""

    rows: str
    task: Literal["maths", "program"] = "maths"


class MathqaFiles(Section):
    """MathQA's train.json, dev.json or test.json; the answer is the letter, or the number that it stands for."""

    rows: str
    answers: Literal["choice", "numeric"] = "choice"


class ReftFiles(Section):
    """A file of mwp_ReFT's data/: *_nl.json (maths), *_python_sdp.json (program) or *_test_set.json (either)."""

    rows: str
    task: Literal["maths", "program"] = "maths"


class ProblemsFiles(Section):
    """Our own problems in words, one a line, as `tasks.data.sources.problems` describes them."""

    rows: str


class OpenaiFiles(Section):
    """Rows of OpenAI's reinforcement fine-tuning: `messages`, and any other key for the grader's `item`."""

    rows: str


Files = TypeVar("Files", bound=Section)


class _Splits(Section, Generic[Files]):
    """Where there is no `val` (or `test`), `num_val` (`num_test`) pictures are held out of `train` by their hash, or a
    tenth (a fifth) of them where that is null; otherwise the numbers are the most that are kept.

    `categories` chooses pictures and objects; `test_categories` (null: the same) those of the test split, which keeps
    the pictures known to show none of them too, in their share beside the `num_test` that do. More than
    `max_quarantined` of the pictures or of the annotations put aside is an error, not a warning. With
    `leave_out_shared`, pictures of train and val that test has too are left out; without, they are an error.
    `sha256` is filled when the study is composed (`flows.fingerprint`): other files make another study.
    """

    train: Files
    val: Files | None = None
    test: Files | None = None
    categories: list[str] | None = None
    test_categories: list[str] | None = None
    num_val: Count | None = None
    num_test: Count | None = None
    max_quarantined: Share = 0.1
    leave_out_shared: bool = False
    sha256: str | None = None


class CocoDataset(_Splits[CocoFiles]):
    source: Literal["coco"]


class LvisDataset(_Splits[CocoFiles]):
    source: Literal["lvis"]


class VocDataset(_Splits[VocFiles]):
    source: Literal["voc"]


class YoloDataset(_Splits[YoloFiles]):
    source: Literal["yolo"]


class FolderDataset(_Splits[FolderFiles]):
    source: Literal["folder"]


class FlowersDataset(_Splits[FlowersFiles]):
    source: Literal["flowers102"]


class PetsDataset(_Splits[PetsFiles]):
    source: Literal["pets37"]


class AircraftDataset(_Splits[AircraftFiles]):
    source: Literal["aircraft"]


class CarsDataset(_Splits[CarsFiles]):
    source: Literal["cars196"]


class LisaDataset(_Splits[LisaFiles]):
    source: Literal["lisa"]


class RowsDataset(_Splits[RowsFiles]):
    source: Literal["visual_rft"]


class JsonlDataset(_Splits[JsonlFiles]):
    source: Literal["jsonl"]


class HfDataset(_Splits[HfFiles]):
    source: Literal["hf"]


class Gsm8kDataset(_Splits[Gsm8kFiles]):
    source: Literal["gsm8k"]


class SvampDataset(_Splits[SvampFiles]):
    source: Literal["svamp"]


class MathqaDataset(_Splits[MathqaFiles]):
    source: Literal["mathqa"]


class ReftDataset(_Splits[ReftFiles]):
    source: Literal["reft"]


class ProblemsDataset(_Splits[ProblemsFiles]):
    source: Literal["problems"]


class OpenaiDataset(_Splits[OpenaiFiles]):
    source: Literal["openai"]


FileDataset = (
    CocoDataset | LvisDataset | VocDataset | YoloDataset | FolderDataset | FlowersDataset | PetsDataset
    | AircraftDataset | CarsDataset | LisaDataset | RowsDataset | JsonlDataset | HfDataset
    | Gsm8kDataset | SvampDataset | MathqaDataset | ReftDataset | ProblemsDataset | OpenaiDataset
)  # fmt: skip
