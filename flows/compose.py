"""Compose `conf/` and overrides into the validated `params.yaml` that DVC reads.

    python -m flows.compose                                   # the shipped study
    python -m flows.compose grid.k=[1,2] sft.steps=50         # single values
    python -m flows.compose +experiment=fsod                  # an experiment of conf/experiment/

A bad override ends with exit code 2, names the key and leaves params.yaml as it was.
"""

import shlex
import sys
from pathlib import Path

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flows.fingerprint import fingerprint
from tasks.params import ParamsError, validate

CONF = Path(__file__).resolve().parent.parent / "conf"
PARAMS = Path("params.yaml")
HEADER = """\
# Made from conf/ by: python -m flows.compose{overrides}
# Do not edit: the next composition overwrites it. Change conf/, or give the command other overrides.
"""


def resolve(config: DictConfig, overrides: list[str]) -> dict:
    """The composed config as plain data in the order of the schema; `ParamsError` names each bad key.

    Without `cluster`: where stages run makes no other study of them, so params.yaml does not say it.
    """
    origin = shlex.join(["conf/", *overrides])
    try:
        raw = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ParamsError(f"{origin}: {error}") from None
    raw.pop("cluster", None)
    params = validate(raw, origin).model_dump()
    if "sha256" in params["dataset"]:
        params["dataset"]["sha256"] = fingerprint(params["dataset"])
    return params


def compose(overrides: list[str]) -> dict:
    """The parameters that `conf/` and `overrides` (Hydra's grammar) give; `ParamsError` names what is bad."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra_compose("config", overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ParamsError(f"{shlex.join(['conf/', *overrides])}: {error}") from None
    return resolve(config, overrides)


def render(params: dict, overrides: list[str]) -> str:
    """The text of params.yaml. PyYAML writes 1.0e-06, which it reads as a number; a bare 1e-6 is a string to it."""
    header = HEADER.format(overrides="".join(f" {shlex.quote(override)}" for override in overrides))
    return header + yaml.safe_dump(params, sort_keys=False, allow_unicode=True, width=120)


def write_params(params: dict, overrides: list[str], path: Path = PARAMS) -> None:
    path.write_text(render(params, overrides), encoding="utf-8")


def main(overrides: list[str]) -> int:
    try:
        params = compose(overrides)
    except ParamsError as error:
        print(error, file=sys.stderr)
        return 2
    write_params(params, overrides)
    print(f"{PARAMS}: study {params['study']}, {len(params['grid']['k']) * len(params['grid']['seed'])} grid point(s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
