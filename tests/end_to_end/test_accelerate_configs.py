"""The launch configurations of recipes/accelerate start what they say, as far as CPUs can tell."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, prepare_multi_gpu_env

from tests.commands import ROOT, environment, run_python

FOLDER = ROOT / "recipes" / "accelerate"
FILES = sorted(FOLDER.glob("*.yaml"))
SLURM = FOLDER / "slurm.sh"

# Of each file: the type, machines, processes, precision.
STARTS = {
    "one_gpu_bf16.yaml": (DistributedType.NO, 1, 1, "bf16"),
    "many_gpus.yaml": (DistributedType.MULTI_GPU, 1, 8, "bf16"),
    "several_machines.yaml": (DistributedType.MULTI_GPU, 2, 16, "bf16"),
    "two_cpu_processes.yaml": (DistributedType.MULTI_GPU, 1, 2, "no"),
    "fsdp2.yaml": (DistributedType.FSDP, 1, 8, "bf16"),
    "zero2.yaml": (DistributedType.FSDP, 1, 8, "bf16"),
    "deepspeed_zero2.yaml": (DistributedType.DEEPSPEED, 1, 8, "bf16"),
}
SHARDING = {"fsdp2.yaml": True, "zero2.yaml": False}

TINY = """
from distill import SGD, CrossEntropy, Digits, Model, Recipe, Term, main

recipe = Recipe(
    name="tiny",
    data=Digits(),
    student=Model("distill.models.cifar:resnet8", arguments={"width": 2}),
    plan={"task": Term(CrossEntropy())},
    optimizer=SGD(lr=0.05),
    epochs=1,
)

if __name__ == "__main__":
    main(recipe)
"""

ON_CPU = {"CUDA_VISIBLE_DEVICES": ""}
TOGETHER = {**ON_CPU, "ACCELERATE_USE_CPU": "true"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder as a user's: recipes/ and a recipe of their own."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "tiny.py").write_text(TINY)
    return tmp_path


def launch(place: Path, file: str, *words: str, more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    config = ["--config_file", f"recipes/accelerate/{file}"]
    return run_python(["-m", "accelerate.commands.launch", *config, *words, "tiny.py"], place, more)


def plan_of(place: Path) -> str:
    return (place / "runs" / "tiny" / "plan.txt").read_text()


def launcher(*words: str) -> Namespace:
    """What Accelerate's launcher makes of its words, a configuration among them."""
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args([*words, "recipe.py"]))
    prepare_multi_gpu_env(arguments)
    return arguments


def test_the_configurations_are_found() -> None:
    assert {file.name for file in FILES} == set(STARTS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_accelerate_reads_what_the_file_says(file: Path) -> None:
    config = load_config_from_file(str(file))
    read = config.distributed_type, config.num_machines, config.num_processes, config.mixed_precision
    assert read == STARTS[file.name]
    assert config.deepspeed_config == ({"zero_stage": 2} if file.name == "deepspeed_zero2.yaml" else {})
    assert not (config.dynamo_config or config.use_cpu)
    again = SHARDING.get(file.name)
    wanted = {"version": 2, "reshard_after_forward": again, "auto_wrap_policy": "NO_WRAP"}
    assert (config.fsdp_config or {}) == ({} if again is None else {f"fsdp_{name}": it for name, it in wanted.items()})


@pytest.mark.parametrize("file", [*FILES, SLURM], ids=lambda file: file.name)
def test_a_file_shows_its_own_command_and_names_no_path_of_a_machine(file: Path) -> None:
    text = file.read_text()
    command = "sbatch " if file == SLURM else "accelerate launch --config_file "
    assert f"{command}recipes/accelerate/{file.name}" in text
    assert "# Tested: " in text
    assert set(re.findall(r"(?<![\w.>])/[\w/]+", text)) <= {"/bin/bash", "/dev/null"}
    for recipe in re.findall(r"recipes/image/\w+\.py", text):
        assert (ROOT / recipe).is_file()
    if file != SLURM:
        assert not [value for value in yaml.safe_load(text).values() if "/" in str(value)]


def test_many_gpus_are_one_process_each_on_a_free_port() -> None:
    words = ["--config_file", str(FOLDER / "many_gpus.yaml")]
    eight, four = launcher(*words), launcher(*words, "--num_processes", "4")
    assert (eight.multi_gpu, eight.nproc_per_node, four.nproc_per_node) == (True, "8", "4")
    assert int(eight.master_port) > 0


def test_each_of_several_machines_starts_its_share_and_meets_at_the_first() -> None:
    given = ["--machine_rank", "1", "--main_process_ip", "alpha"]
    second = launcher("--config_file", str(FOLDER / "several_machines.yaml"), *given)
    assert (second.nnodes, second.nproc_per_node, second.node_rank) == ("2", "8", 1)
    assert (second.rdzv_backend, second.rdzv_endpoint) == ("static", "alpha:29500")


@pytest.mark.slow
def test_two_cpu_processes_train_together(place: Path) -> None:
    done = launch(place, "two_cpu_processes.yaml", more=TOGETHER)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report: runs/tiny/report.md") == 1
    assert "over 2 processes" in plan_of(place) and "precision float32" in plan_of(place)


@pytest.mark.slow
def test_two_cpu_processes_without_the_variable_are_refused(place: Path) -> None:
    done = launch(place, "two_cpu_processes.yaml", more=ON_CPU)
    assert done.returncode != 0
    assert "The launcher started 2 processes, but each sees 1." in done.stderr
    assert not (place / "runs").exists()


@pytest.mark.slow
def test_one_gpu_is_one_process_in_bf16(place: Path) -> None:
    done = launch(place, "one_gpu_bf16.yaml", more=ON_CPU)
    assert done.returncode == 0, done.stderr
    assert "over 1 process " in plan_of(place) and "precision bf16" in plan_of(place)


@pytest.mark.slow
def test_many_gpus_train_together_in_bf16_as_cpus(place: Path) -> None:
    done = launch(place, "many_gpus.yaml", "--num_processes", "2", more=TOGETHER)
    assert done.returncode == 0, done.stderr
    assert "over 2 processes" in plan_of(place) and "precision bf16" in plan_of(place)


@pytest.mark.slow
@pytest.mark.parametrize("file", SHARDING)
def test_a_student_is_sharded_over_two_cpu_processes(file: str, place: Path) -> None:
    done = launch(place, file, "--num_processes", "2", more=TOGETHER)
    assert done.returncode == 0, done.stderr
    assert "over 2 processes" in plan_of(place) and "precision bf16" in plan_of(place)
    assert "Each process keeps a share of the student (FSDP 2)." in plan_of(place)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed, which is there on Linux")
def test_deepspeed_shares_a_student_over_two_cpu_processes(place: Path) -> None:
    done = launch(place, "deepspeed_zero2.yaml", "--num_processes", "2", more=TOGETHER)
    assert done.returncode == 0, done.stderr
    assert "over 2 processes" in plan_of(place) and "precision bf16" in plan_of(place)
    told = "Each process keeps a share of the student's gradients and optimizer state (DeepSpeed ZeRO stage 2)."
    assert told in plan_of(place)
    assert "untested" not in done.stdout + done.stderr and "distill: warning" not in done.stderr


# Stand-ins for SLURM's commands, which note what they were told. A task has a process group of its own.
SRUN = """#!/bin/bash
options=()
while [[ $1 == --* ]]; do options+=("$1"); shift; done
echo "srun ${options[*]}" >> said
for ((node = 0; node < SLURM_NNODES; node++)); do
    SLURM_NODEID=$node setsid "$@" &
    tasks+=($!)
done
printf '%s\\n' "${tasks[@]}" > tasks
worst=0
for task in "${tasks[@]}"; do
    code=0
    wait "$task" || code=$?
    ((code > worst)) && worst=$code
done
exit $worst
"""

SCONTROL = """#!/bin/bash
echo "scontrol $*" >> said
[[ "$*" != "show hostnames "* ]] || printf '%s\\n' $HOSTS
"""

# $REACHES is a minus where a signal reaches all of a task's processes, and nothing where it reaches the first alone.
SCANCEL = """#!/bin/bash
echo "scancel $*" >> said
while read -r task; do kill -USR1 -- "$REACHES$task"; done < tasks
"""

SAYS = """#!/bin/bash
echo "node $SLURM_NODEID: accelerate $*" >> said
exit $CODE
"""

TRAINS = """#!/bin/bash
trap 'echo "node $SLURM_NODEID: SIGTERM" >> said; exit 1' TERM
sleep 0.5
touch launched-$SLURM_NODEID
while :; do sleep 0.02; done
"""

REAL = f"""#!/bin/bash
exec {sys.executable} -m accelerate.commands.accelerate_cli "$@"
"""


def batch(
    place: Path,
    accelerate: str,
    *words: str,
    hosts: str = "alpha beta",
    reaches: str = "",
    code: int = 0,
    gpus: int = 8,
) -> "subprocess.Popen[str]":
    """The batch script, started as SLURM does on the first of two nodes."""
    tools = place / "tools"
    tools.mkdir(exist_ok=True)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("scancel", SCANCEL), ("accelerate", accelerate)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "[alpha-beta]", "SLURM_NNODES": "2"}
    job |= {"SLURM_GPUS_ON_NODE": str(gpus), "SLURM_CPUS_PER_TASK": "32"}
    told = {"HOSTS": hosts, "REACHES": reaches, "CODE": str(code), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.Popen(
        ["bash", str(SLURM), *words],
        cwd=place,
        env=environment(**job, **told, **TOGETHER),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: "subprocess.Popen[str]", place: Path, seconds: float = 20) -> tuple[int, str]:
    """Its exit code and what it wrote; past its time it is ended, with its tasks."""
    with process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            tasks = (place / "tasks").read_text().split() if (place / "tasks").exists() else []
            os.killpg(process.pid, signal.SIGKILL)
            for group in map(int, tasks):  # the launchers end what they started, which has sessions of its own
                os.killpg(group, signal.SIGTERM)
            raise
    return process.returncode, out + err


def wait_until(true: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float) -> None:
    """Wait while the process runs; where it ends or takes too long, it fails the test, and what it started is ended."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until or process.poll() is not None:
            process.send_signal(signal.SIGUSR1)
            pytest.fail(f"It did not come so far: {process.communicate(timeout=60)}")
        time.sleep(0.02)


def said(place: Path) -> list[str]:
    return (place / "said").read_text().splitlines()


def test_the_slurm_script_is_bash() -> None:
    assert subprocess.run(["bash", "-n", str(SLURM)], check=False, capture_output=True, text=True).stderr == ""


def test_slurm_starts_one_launcher_a_node_with_its_own_rank(place: Path) -> None:
    """Two nodes of eight GPUs: 16 processes. Job 4711 meets at port 20000 + 4711."""
    code, text = ended(batch(place, SAYS, "a.py", "b.py", "--name", "two words"), place)
    assert (code, text) == (0, "")
    first, second, *lines = said(place)
    assert first == "scontrol show hostnames [alpha-beta]"
    assert second == "srun --ntasks=2 --ntasks-per-node=1 --cpus-per-task=32 --kill-on-bad-exit=1"
    config = "--config_file recipes/accelerate/several_machines.yaml"
    start = f"accelerate launch {config} --num_machines 2 --num_processes 16"
    meets = "--main_process_ip alpha --main_process_port 24711"
    train = "-m distill train a.py b.py --name two words --resume auto"
    assert sorted(lines) == [f"node {rank}: {start} --machine_rank {rank} {meets} {train}" for rank in (0, 1)]


@pytest.mark.parametrize("reaches", ["", "-"], ids=["a task's first process", "all of a task's processes"])
def test_slurms_warning_reaches_every_launcher_and_the_job_is_put_back(place: Path, reaches: str) -> None:
    process = batch(place, TRAINS, "tiny.py", reaches=reaches)
    wait_until(lambda: all((place / f"launched-{node}").exists() for node in (0, 1)), process, seconds=20)
    process.send_signal(signal.SIGUSR1)
    code, text = ended(process, place)
    assert "Traceback" not in text and "unbound" not in text
    assert code == 0, text
    assert said(place)[2] == "scancel --signal=USR1 4711"
    assert sorted(said(place)[3:5]) == ["node 0: SIGTERM", "node 1: SIGTERM"]
    assert said(place)[5:] == ["scontrol requeue 4711"]


def test_a_job_that_fails_is_not_put_back(place: Path) -> None:
    code, _ = ended(batch(place, SAYS, "tiny.py", code=3), place)
    assert code == 3
    assert not [line for line in said(place) if "requeue" in line]


def test_slurm_without_a_recipe_or_outside_of_the_folder_stops_at_once(place: Path) -> None:
    text = "slurm.sh: name a recipe, and submit from the folder that holds recipes/accelerate/several_machines.yaml.\n"
    assert ended(batch(place, SAYS), place) == (2, text)
    (place / "elsewhere").mkdir()
    assert ended(batch(place / "elsewhere", SAYS, "tiny.py"), place) == (2, text)


@pytest.mark.slow
def test_two_nodes_under_slurm_train_together(place: Path) -> None:
    """The nodes are this computer twice, with a CPU each for a GPU."""
    code, text = ended(batch(place, REAL, "tiny.py", hosts="127.0.0.1 alpha", gpus=1), place, seconds=200)
    assert code == 0, text
    assert text.count("Report: runs/tiny/report.md") == 1
    assert "over 2 processes" in plan_of(place) and "precision bf16" in plan_of(place)


@pytest.mark.slow
def test_a_job_at_its_time_limit_saves_and_goes_on_behind_it(place: Path) -> None:
    """Twice: each job is stopped once it has logged steps, and the second begins behind the first's last one."""
    log, words = place / "runs" / "tiny" / "metrics.jsonl", ("tiny.py", "--epochs", "60", "--log_every", "1")

    def steps() -> list[int]:
        text = log.read_text() if log.exists() else ""
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [line["step"] for line in lines if "raw" in line]

    for turn in (1, 2):
        before = len(steps())
        process = batch(place, REAL, *words, hosts="127.0.0.1 alpha", gpus=1)
        wait_until(lambda before=before: len(steps()) > before + 5, process, seconds=150)
        process.send_signal(signal.SIGUSR1)
        _, text = ended(process, place, seconds=60)
        assert "it is saved. Go on with --resume auto." in text
        assert said(place).count("scontrol requeue 4711") == turn
    assert steps() == list(range(1, len(steps()) + 1)), "each step once, in order"
