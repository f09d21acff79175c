"""The machine file: the paper's numbers, their consistency, and what is told about a wrong file."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from rpucluster.cluster import Accelerator, Cluster, load_cluster
from rpucluster.config import shipped, write_toml
from rpucluster.errors import ConfigError, InputError, PlanError

NAMES = (
    "a100_3072", "dgx_a100", "dgx_h100", "fat_tree16", "h100_4096", "laptop", "paper_chip", "paper_cpu", "paper_gpu",
    "ring8", "rpu_pod_4096", "torus4x4", "tpu_v4_cube",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_shipped_clusters_survive_being_written_and_read(name: str) -> None:
    cluster = load_cluster(name)
    assert cluster.name == name
    assert Cluster.model_validate(tomllib.loads(write_toml(cluster))) == cluster


def test_all_and_only_these_are_shipped() -> None:
    assert tuple(shipped("cluster")) == NAMES
    assert [load_cluster(name).accelerators for name in NAMES] == [3072, 8, 32, 16, 4096, 4, 1, 1, 1, 8, 4096, 16, 64]


def test_a_resolved_cluster_keeps_its_name_in_another_file(tmp_path: Path) -> None:
    cluster = load_cluster("torus4x4", ["accelerator.forward.read_noise=0.1"])
    (tmp_path / "cluster.toml").write_text(write_toml(cluster))
    assert load_cluster(tmp_path / "cluster.toml") == cluster


def test_the_file_of_the_paper_chip_spells_the_preset_out() -> None:
    written, preset = load_cluster("paper_chip").accelerator, Accelerator()
    spelled = tomllib.loads(shipped("cluster")["paper_chip"].read_text())["accelerator"]
    assert set(spelled) == set(Accelerator.model_fields) - {"buffer"}  # of which no size is assumed
    for key in spelled:
        value = getattr(preset, key)
        # the energies are rounded there to what a person reads
        expected = pytest.approx(value, rel=5e-5) if key.endswith("_energy") else value
        assert getattr(written, key) == expected, key


def test_one_accelerator_of_laptop_holds_the_digits_network() -> None:
    chip = load_cluster("laptop").accelerator
    layers = [(64, 65), (32, 65), (10, 33)]  # rows, columns with the bias: 64-64-32-10
    grids = [(-(-rows // chip.tile_rows), -(-cols // chip.tile_cols)) for rows, cols in layers]
    assert [a * b for a, b in grids] == [20, 10, 3]
    assert chip.tiles >= 33


def test_the_rates_follow_from_the_paper() -> None:
    chip = Accelerator()
    # 4096 outputs, and 5 + 9 bits of 4096 lines, in 80 ns for each of 50 active tiles
    assert chip.digital_rate == pytest.approx(50 * 51.2e9)
    assert chip.on_chip_bandwidth == pytest.approx(50 * 89.6e9)


def test_rates_that_are_not_written_follow_tiles_and_times() -> None:
    chip = Accelerator(tile_rows=16, tile_cols=32, tiles=10, forward_time="40 ns")
    assert chip.active_tiles == 10
    assert chip.digital_rate == pytest.approx(10 * 16 / 40e-9)
    assert chip.on_chip_bandwidth == pytest.approx(10 * (32 * 5 + 16 * 9) / 8 / 40e-9)
    assert Accelerator(active_tiles=10, digital_rate="1 Gop/s").digital_rate == 1e9


def test_the_parts_of_the_energy_add_up_to_5_watts_per_active_tile() -> None:
    chip, lines = Accelerator(), 4096
    array = lines**2 * chip.read_energy / 80e-9
    adc = lines * chip.adc_energy / 80e-9
    assert array == pytest.approx(0.28, rel=2e-3)
    assert adc == pytest.approx(1.18, rel=3e-3)
    digital = 51.2e9 * chip.digital_energy
    on_chip = 89.6e9 * chip.on_chip_energy
    assert digital == pytest.approx(on_chip)
    assert array + adc + digital + on_chip == pytest.approx(5.0)
    # pulses draw what reads draw
    assert lines**2 * chip.pulse_energy / chip.pulse_width == pytest.approx(array)


@pytest.mark.parametrize(
    ("keys", "seconds"),
    [
        ({}, 80e-9),  # 16 samples of 5 ns just hide
        ({"adc_lines": 32}, 160e-9),  # the converters hold the pass up
        ({"adc_lines": 32, "tile_rows": 8}, 80e-9),  # no more samples than lines
        ({"forward_time": "200 ns"}, 200e-9),
    ],
)
def test_a_pass_waits_for_the_slower_of_integration_and_conversion(keys: dict[str, Any], seconds: float) -> None:
    assert Accelerator(**keys).pass_time("forward") == pytest.approx(seconds)


def test_a_backward_pass_has_its_own_time_and_converts_the_columns() -> None:
    chip = Accelerator(backward_time="40 ns", adc_lines=64, tile_cols=16)
    assert chip.pass_time("backward") == pytest.approx(80e-9)  # 16 columns of 5 ns
    assert chip.pass_time("forward") == pytest.approx(320e-9)  # 64 of the 4096 rows


def test_bytes_of_a_pass_are_those_of_the_converters(tmp_path: Path) -> None:
    chip = Accelerator()
    assert chip.pass_bytes("forward", 4096, 4096) == 4096 * 14 / 8
    path = tmp_path / "c.toml"
    path.write_text("[accelerator]\nbackward = {input_bits = 0, output_bits = 8}\n")
    assert load_cluster(path).accelerator.pass_bytes("backward", 1, 1) == (32 + 8) / 8  # 0: a whole word


def test_tiles_beyond_the_active_limit_take_turns() -> None:
    chip = Accelerator(active_tiles=4)
    assert [chip.waves(tiles) for tiles in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]


def test_overrides_reach_axes_by_name() -> None:
    cluster = load_cluster("torus4x4", ["network.axis.rack.bandwidth=100 GB/s", "accelerator.tiles=7"])
    assert [axis.bandwidth for axis in cluster.network.axis] == [50e9, 100e9]
    assert cluster.accelerator.tiles == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "[accelerator]: missing; write it"),
        ("[accelerator]\ntile_row = 4", '[accelerator] tile_row: unknown key; did you mean "tile_rows"?'),
        ("[accelerator]\ntiles = 0", "[accelerator] tiles = 0: input should be greater than or equal to 1"),
        ("[accelerator]\ntiles = true", "[accelerator] tiles = true: input should be a valid integer"),
        ('[accelerator]\npreset = "rpu"', "[accelerator] preset = \"rpu\": input should be 'rpu-paper'"),
        (
            "[accelerator]\nforward_time = 80",
            '[accelerator] forward_time: 80 is not a time; write a string with a unit, such as "80 ns"',
        ),
        (
            "[accelerator]\ntiles = 3\nactive_tiles = 4",
            "[accelerator]: active_tiles = 4 but there are 3 tiles; lower active_tiles or raise tiles",
        ),
        (
            "[accelerator.forward]\nread_nois = 0.1",
            '[accelerator.forward] read_nois: unknown key; did you mean "read_noise"?',
        ),
        (
            '[accelerator]\n[[network.axis]]\nname = "a"\nkind = "ring"\nsize = 4\nlatency = "1 us"',
            "[network.axis #1] bandwidth: missing; write it",
        ),
        (
            '[accelerator]\n[[network.axis]]\nname = "a"\nkind = "ring"\nsize = 4\nlatncy = "1 us"',
            '[network.axis #1] latncy: unknown key; did you mean "latency"?',
        ),
        ("[acelerator]", '[acelerator]: unknown key; did you mean "accelerator"?'),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_cluster(path)
    assert str(error.value) == f"mine.toml: {message}"


def test_an_unknown_cluster_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match='did you mean "laptop"'):
        load_cluster("lapptop")


def test_faults_reach_the_network_and_survive_being_written(tmp_path: Path) -> None:
    sets = [
        'faults.failed_links=["board:3->4"]',
        'faults.slow_links={"board:0->1" = 2}',
        'faults.slow_accelerators={"3" = 1.5}',
    ]
    cluster = load_cluster("ring8", sets)
    assert cluster.network.hops(3, 4) == 7
    assert cluster.network.bandwidth_of(cluster.network.path(0, 1)[0]) == 25e9
    assert cluster.faults.slowdowns == {3: 1.5}
    (tmp_path / "cluster.toml").write_text(write_toml(cluster))
    again = load_cluster(tmp_path / "cluster.toml")
    assert again == cluster
    assert again.network.hops(3, 4) == 7
    # a size may still be changed in a file that was written
    larger = load_cluster(tmp_path / "cluster.toml", ["network.axis.board.size=16"])
    assert (larger.accelerators, larger.network.hops(3, 4)) == (16, 15)


LINKS = """
[accelerator]
[network]
accelerators = 3
[[network.link]]
from = 0
to = "leaf0"
bandwidth = "50 GB/s"
latency = "500 ns"
[[network.link]]
name = "second"
from = 1
to = "leaf0"
bandwidth = "50 GB/s"
latency = "500 ns"
[[network.link]]
from = 2
to = "leaf0"
bandwidth = "50 GB/s"
latency = "500 ns"
"""


def test_links_are_set_by_name(tmp_path: Path) -> None:
    path = tmp_path / "links.toml"
    path.write_text(LINKS)
    cluster = load_cluster(path, ["network.link.second.bandwidth=20 GB/s", 'faults.failed_links=["second:leaf0->1"]'])
    assert cluster.accelerators == 3
    assert [cluster.network.bandwidth_of(link.number) for link in cluster.network.route(1, 2)] == [20e9, 50e9]
    with pytest.raises(InputError, match="no way from accelerator 0 to 1"):
        cluster.network.path(0, 1)
    (tmp_path / "again.toml").write_text(write_toml(cluster))
    assert load_cluster(tmp_path / "again.toml").network == cluster.network


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('faults.failed_links=["board:3->5"]', '[faults] there is no link "board:3->5"; did you mean "board:'),
        ('faults.failed_link=["board:3->4"]', '[faults] failed_link: unknown key; did you mean "failed_links"?'),
        ('faults.slow_links={"board:3->4" = 0.5}', "slow_links = 0.5: input should be greater than or equal to 1"),
        ('faults.slow_accelerators={"8" = 2}', "slow_accelerators names 8, but there are 8, numbered from 0"),
        ('faults.slow_accelerators={"one" = 2}', '"one" is not the number of an accelerator'),
    ],
)
def test_faults_of_what_is_not_there(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_cluster("ring8", [override])
    assert message in str(error.value)
    assert str(error.value).startswith("ring8.toml: ")


GPU = """
[accelerator]
kind = "gpu"
peak_rate = "312 TFLOP/s"
memory = "80 GiB"
memory_bandwidth = "2039 GB/s"
busy_power = "400 W"
"""


def test_a_gpu_is_no_rpu(tmp_path: Path) -> None:
    path = tmp_path / "gpu.toml"
    path.write_text(GPU)
    cluster = load_cluster(path, ["accelerator.idle_power=50 W"])
    chip = cluster.processor
    assert (chip.peak_rate, chip.memory, chip.idle_power) == (312e12, 80 * 2**30, 50)
    with pytest.raises(PlanError, match=r'gpu has \[accelerator\] kind = "gpu", which has no tiles'):
        _ = cluster.accelerator
    with pytest.raises(PlanError, match=r'ring8 has \[accelerator\] kind = "rpu"; name a cluster whose'):
        _ = load_cluster("ring8").processor


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("accelerator.kind=tpu", '[accelerator] kind must be "rpu", "gpu" or "cpu"'),
        ("accelerator.tiles=4", "[accelerator] tiles: unknown key"),
        ("accelerator.memory_bandwith=2 TB/s", '[accelerator] memory_bandwith: unknown key; did you mean "memory_band'),
        ("accelerator.peak_rate=312 TB/s", '[accelerator] peak_rate: "312 TB/s": TB/s is not a unit'),
        ("accelerator.kind=rpu", '[accelerator] peak_rate: unknown key; did you mean "digital_rate"?'),
    ],
)
def test_what_is_wrong_about_a_gpu(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "gpu.toml"
    path.write_text(GPU)
    with pytest.raises(ConfigError) as error:
        load_cluster(path, [override])
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
