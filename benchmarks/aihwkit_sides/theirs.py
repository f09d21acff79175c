"""The opponent's side of `against_aihwkit.py`: runs its script again and again in one process of its Python.

    PYTHON theirs.py SCRIPT

Takes one JSON request a line and answers each with one line.  Needs nothing but what aihwkit needs.
"""

import contextlib
import gc
import io
import json
import runpy
import sys
from typing import Any


def measured(script: str, arguments: list[str]) -> dict[str, Any]:
    """What the script prints for these arguments."""
    sys.argv = [script, *arguments]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name="__main__")
    gc.collect()  # tiles of 600 MB
    answer: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
    return answer


def preset() -> dict[str, Any]:
    """The settings of the installed preset, by our names."""
    from aihwkit.simulator.presets import GokmenVlasovPreset

    config = GokmenVlasovPreset()
    device, update = config.device, config.update
    fields = "dw_min dw_min_dtod dw_min_std w_max w_max_dtod w_min w_min_dtod up_down up_down_dtod"
    found: dict[str, Any] = {name: getattr(device, name) for name in fields.split()}
    for direction in ("forward", "backward"):
        io_ = getattr(config, direction)
        found[direction] = {
            "input_steps": round(1 / io_.inp_res),  # over both bounds
            "output_steps": round(1 / io_.out_res),
            "output_bound": io_.out_bound,
            "read_noise": io_.out_noise,
            "noise_management": io_.noise_management.value,
            "bound_management": io_.bound_management.value,
        }
    found["update"] = {
        "bit_length": update.desired_bl,
        "update_management": update.update_management,
        "dynamic_bit_length": update.update_bl_management,
    }
    return found


def main() -> None:
    script, answers = sys.argv[1], sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        answer = preset() if request == "preset" else measured(script, request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
