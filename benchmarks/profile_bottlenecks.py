"""Does `profile` name a bottleneck that is known by construction?  Writes the table profile_bottlenecks.md beside it.

    python benchmarks/profile_bottlenecks.py

The cases are those of tests/bottlenecks.py, where one thing is made so scarce that it is most of the step.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from rpucluster.profile.step import profile
from rpucluster.report.profile_text import change_of
from tests.bottlenecks import CASES

HEAD = """# Bottlenecks that are known by construction

By `python benchmarks/profile_bottlenecks.py`; the cases are those of `tests/bottlenecks.py`. The expected gain is the
closed form for what was made scarce; every gain that `profile` says is a replay of the changed job on the cluster.

| made scarce | how | expected gain | named first | by replay | why, in its words | named second |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    rows = []
    for case in CASES:
        first, *others = profile(case.job(), case.machine()).content["bottlenecks"]
        second = f"{others[0]['name']} (-{100 * others[0]['gain']:.1f} %)" if others else "nothing gains more than 1 %"
        right = "**right**" if first["resource"] == case.resource else "**WRONG**"
        cells = (
            case.name,
            case.built,
            f"-{100 * case.gain:.1f} %",
            f"{first['name']}: {right}",
            change_of(first),
            first["why"],
            second,
        )
        rows.append(f"| {' | '.join(cells)} |\n")
    text = HEAD + "".join(rows)
    (Path(__file__).parent / "profile_bottlenecks.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
