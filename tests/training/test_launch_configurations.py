"""The files for ``accelerate launch`` that ship: accelerate itself reads them."""

from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "accelerate"
PROCESSES = {"one_gpu": 1, "four_gpus": 4, "two_machines": 8, "two_cpus": 2}


def test_there_are_no_others():
    assert {path.stem for path in FOLDER.glob("*")} == set(PROCESSES)


@pytest.mark.parametrize("name", PROCESSES)
def test_accelerate_reads_it_and_it_begins_with_its_command(name):
    path = FOLDER / f"{name}.yaml"
    read = load_config_from_file(str(path))
    assert read.num_processes == PROCESSES[name]
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# accelerate launch --config_file recipes/accelerate/{name}.yaml")


def test_first_machine_of_two_starts_its_half_of_the_processes():
    words = ["--config_file", str(FOLDER / "two_machines.yaml"), "--machine_rank", "1"]
    words += ["--main_process_ip", "10.0.0.7", "recipes/train.py", "CONFIG.yaml", "--steps", "3"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    prepare_multi_gpu_env(args)
    assert args.multi_gpu and (args.nproc_per_node, args.nnodes, args.node_rank) == ("4", "2", 1)
    # One address that both machines know: the first's.
    assert args.rdzv_endpoint == "10.0.0.7:29500"
    assert args.training_script_args == ["CONFIG.yaml", "--steps", "3"]


def test_two_cpus_start_two_processes():
    words = ["--config_file", str(FOLDER / "two_cpus.yaml"), "recipes/train.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert args.multi_gpu and args.num_processes == 2
    assert torch.distributed.is_gloo_available()
