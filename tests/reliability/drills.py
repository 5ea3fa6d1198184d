# SPDX-License-Identifier: Apache-2.0
"""Drills: kill, stop, damage and starve real training runs, and compare what comes out with an undisturbed run.

    python tests/reliability/drills.py FOLDER                         # all of them, about an hour on two cores
    python tests/reliability/drills.py FOLDER --only kills --tries 4

Every try is one line of FOLDER/log.jsonl; the same command goes on after the last one. The runs are whole commands on
a tiny phantom: 10 epochs of a small network on 64×64 pixels. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.handlers import CheckpointSaver
from training_lab import (
    CONFIGS,
    EPOCHS,
    ROOT,
    STAGES,
    Lab,
    Record,
    finish,
    leftovers,
    phase_of,
    run,
    same_as,
    started,
    wait_for,
    wait_for_moment,
    whole_checkpoint,
    workers_of,
)

from bundle.errors import UserError
from bundle.networks import UNet
from bundle.networks.weights import load_tensors
from bundle.provenance import commit_of
from bundle.training import Checkpoint, MovingAverage
from bundle.training.checkpoint import BEST, LAST, PREVIOUS


def try_saving(lab: Lab, number: int, ours: bool = True) -> Record:
    """Kill -9 a process that does nothing but save; with ``ours`` false, MONAI's saver as the zoo's bundles use it."""
    folder = lab.fresh("saving" if ours else "saving_monai", number)
    folder.mkdir(parents=True)
    delay = random.Random(f"saving{number}").uniform(0.0, 0.5)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _save_for_ever(folder, ours, writing)
        finally:
            os._exit(1)
    os.close(writing)
    told = b""
    while told.count(b"\n") < 3:
        told += os.read(reading, 1000)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 1000):
        told += more
    os.close(reading)
    saved = int(told.split()[-1])
    if ours:
        content = whole_checkpoint(folder)
        loaded = content["epoch"] if content else None
        weights = content["state"]["network"] if content else {}
    else:
        loaded, weights = None, {}
        with contextlib.suppress(UserError):
            weights = load_tensors(folder / "model.pt")
            loaded = int(weights["head.bias"][0])
    consistent = loaded is not None and float(weights["head.bias"][0]) == loaded
    interrupted = [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
    shutil.rmtree(folder)
    facts = {"last_saved_epoch": saved, "loaded_epoch": loaded, "interrupted": bool(interrupted)}
    return {**facts, "ok": consistent and loaded is not None and loaded >= saved}


def _save_for_ever(folder: Path, ours: bool, told: int) -> None:
    """Save the shipped size of network each "epoch", with nothing in between, and tell each epoch that is saved."""
    network = UNet(filters=(16, 32, 64, 128))
    engine = Engine(lambda *_: None)

    @engine.on(Events.EPOCH_STARTED)
    def mark(engine: Any) -> None:
        with torch.no_grad():
            network.head.bias.fill_(engine.state.epoch)  # type: ignore[operator, union-attr]
        engine.state.metrics["score"] = float(engine.state.epoch)
        engine.state.key_metric_name = "score"

    if ours:
        saver = Checkpoint(folder, Engine(lambda *_: None), network, {"network": network}, time_share=math.inf)
        saver.attach(engine)
    else:
        CheckpointSaver(str(folder), {"model": network}, save_key_metric=True, key_metric_filename="model.pt").attach(
            engine
        )
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: os.write(told, f"{engine.state.epoch}\n".encode()))
    engine.run([0], max_epochs=10**6)


def try_kill(lab: Lab, number: int) -> Record:
    """Kill -9 a whole run at a random moment, run the same command until it is done, compare."""
    stage, workers, group = STAGES[number % 2], (0, 2)[number // 2 % 2], number % 5 == 4
    reference = lab.reference(stage, workers)
    dice = random.Random(f"kill{number}")
    aim = ("anywhere", "training", "saving")[number % 3]
    output = lab.fresh("kills", number)
    command = lab.command(stage, output, workers)
    killed = False
    while not killed:
        shutil.rmtree(output, ignore_errors=True)
        with started(command) as process:
            if aim == "anywhere":
                time.sleep(dice.uniform(0, reference.end))
            else:
                wait_for(lambda: (output / LAST).exists(), process)
                time.sleep(dice.uniform(0, reference.training))
                if aim == "saving":
                    wait_for(lambda: bool(leftovers(output)), process)
            killed = process.poll() is None
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL) if killed else None
            process.wait()
    facts = {"stage": stage, "workers": workers, "group": group, "aim": aim, "phase": phase_of(output, stage)}
    codes = []
    while not codes or (codes[-1] != 0 and len(codes) < 3):
        codes.append(run(command).code)
    identical = codes[-1] == 0 and same_as(reference, output, stage)
    return {**facts, "exit_codes": codes, "identical": identical, "ok": identical and codes == [0]}


def try_resume(lab: Lab, number: int) -> Record:
    """Cut a run after each of its epochs."""
    stage, epoch = STAGES[number // (EPOCHS - 1)], number % (EPOCHS - 1) + 1
    output = lab.fresh("resume", number)
    killed = run(lab.sabotaged("kill_after_epoch", epoch, stage, output)).code
    saved = whole_checkpoint(output)["epoch"]
    code = run(lab.command(stage, output)).code
    identical = code == 0 and same_as(lab.reference(stage), output, stage)
    facts = {"stage": stage, "epoch": epoch, "exit_code": code, "identical": identical}
    return {**facts, "ok": identical and killed == -signal.SIGKILL and saved == epoch}


def try_signal(lab: Lab, number: int) -> Record:
    """Stop a run by SIGINT or SIGTERM, alone or its whole process group, then go on."""
    name = ("SIGTERM", "SIGINT")[number % 2]
    group, workers = bool(number // 2 % 2), (0, 2)[number // 4 % 2]
    stage = STAGES[number // 8 % 2]
    reference = lab.reference(stage, workers)
    output = lab.fresh("signals", number)
    command = lab.command(stage, output, workers)
    with started(command) as process:
        wait_for_moment(random.Random(f"signal{number}"), reference, output, process)
        (os.killpg if group else os.kill)(process.pid, getattr(signal, name))
        asked = time.monotonic()
        stopped = finish(process)
    seconds = time.monotonic() - asked
    saved = whole_checkpoint(output)
    told = f"Stopped by {name}; the same command goes on from" in stopped.output
    code = run(command).code
    identical = code == 0 and same_as(reference, output, stage)
    return {
        **{"stage": stage, "signal": name, "group": group, "workers": workers, "exit_code": stopped.code},
        **{"epoch": saved["epoch"], "batches": saved["iteration"], "seconds": round(seconds, 2)},
        **{"identical": identical, "ok": identical and told and stopped.code == 128 + getattr(signal, name)},
    }


DAMAGES = ("truncated", "emptied", "bits flipped", "zeroed", "overwritten")
DAMAGED_FILES = ((LAST,), (PREVIOUS,), (BEST,), (LAST, PREVIOUS), (LAST, PREVIOUS, BEST))


def try_corruption(lab: Lab, number: int) -> Record:
    """Damage checkpoints of a cut run: it must recover to the same end, or refuse naming a damaged file."""
    how, names = DAMAGES[number % 5], DAMAGED_FILES[number // 5 % 5]
    base = lab.folder / "corruption_base"
    if whole_checkpoint(base) is None:
        shutil.rmtree(base, ignore_errors=True)
        run(lab.sabotaged("kill_after_epoch", 6, "segmentation", base))
    output = lab.fresh("corruption", number)
    shutil.copytree(base, output)
    for name in names:
        _damage(output / name, how, random.Random(f"damage{number}{name}"))
    ended = run(lab.command("segmentation", output))
    recovered = ended.code == 0 and same_as(lab.reference("segmentation"), output, "segmentation")
    refused = ended.code == 2 and any(name in ended.last_line for name in names)
    warned = LAST not in names or "WARNING" in ended.output or refused
    facts = {"how": how, "files": list(names), "exit_code": ended.code, "last_line": _anonymous(ended.last_line, lab)}
    return {**facts, "outcome": "recovered" if recovered else "refused", "ok": (recovered or refused) and warned}


def _damage(path: Path, how: str, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = dice.randrange(len(content) // 2)
    stop = start + dice.randrange(1, len(content) // 2)
    if how == "truncated":
        del content[stop:]
    elif how == "emptied":
        content.clear()
    elif how == "zeroed":
        content[start:stop] = bytes(stop - start)
    elif how == "overwritten":
        content[start:stop] = dice.randbytes(stop - start)
    else:
        for _ in range(3):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def try_not_finite(lab: Lab, number: int) -> Record:
    """NaN in an image, infinity in the loss, NaN in a gradient: stop in that iteration, name a file, keep the last."""
    kind = ("nan_in_image", "inf_in_loss", "nan_in_gradient")[number % 3]
    stage = STAGES[number // 3 % 2]
    output = lab.fresh("not_finite", number)
    iteration = 9  # after whole epochs, and at the beginning of one
    ended = run(lab.sabotaged(kind, iteration, stage, output))
    struck, file = re.findall(r"sabotaged: (iteration \d+), (.+)", ended.output)[0]
    saved = whole_checkpoint(output)
    finite = all(bool(torch.isfinite(value.float()).all()) for value in saved["state"]["network"].values())
    at_once = struck == f"iteration {iteration}" and f"{struck}," in ended.last_line
    facts = {"kind": kind, "stage": stage, "exit_code": ended.code, "last_line": _anonymous(ended.last_line, lab)}
    return {**facts, "ok": ended.code == 2 and at_once and file in ended.last_line and finite and saved["epoch"] > 0}


def try_worker(lab: Lab, number: int) -> Record:
    """Two gloo processes: kill -9 one (the tenth try: freeze it); the job must recover by itself, and soon."""
    stage, rank = STAGES[number // 2 % 2], number % 2
    freeze = number % 10 == 9
    reference = lab.reference(stage, processes=2)
    output = lab.fresh("workers", number)
    with started(lab.processes(stage, output, extra=("--hang_timeout", "20"))) as process:
        wait_for_moment(random.Random(f"worker{number}"), reference, output, process)
        before = workers_of(output)
        os.kill(before[rank], signal.SIGSTOP if freeze else signal.SIGKILL)
        struck = time.monotonic()
        epoch = whole_checkpoint(output)["epoch"]
        restarted = wait_for(lambda: len(set(workers_of(output).values()) - set(before.values())) == 2, process)
        came_back = time.time_ns()
        wait_for(lambda: _written_since(output / LAST, came_back), process)
        recovered = time.monotonic() - struck
        ended = finish(process)
    reason = next((line for line in ended.output.splitlines() if line.startswith("the training ended")), "")
    identical = ended.code == 0 and same_as(reference, output, stage)
    facts = {"stage": stage, "rank": rank, "how": "frozen" if freeze else "killed", "epoch": epoch}
    facts |= {"seconds_until_it_trained_on": round(recovered, 1), "reason": reason, "identical": identical}
    return {**facts, "ok": identical and restarted and recovered < 120}


def _written_since(path: Path, nanoseconds: int) -> bool:
    with contextlib.suppress(FileNotFoundError):  # while it is renamed
        return path.stat().st_mtime_ns > nanoseconds
    return False


def try_nodes(lab: Lab, number: int) -> Record:
    """Two launchers of one process each, as on two nodes; kill -9 one process: both must start again and finish."""
    stage = STAGES[number % 2]
    output = lab.fresh("nodes", number)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = f"localhost:{free.getsockname()[1]}"
    command = lab.processes(stage, output)
    at = command.index("--processes")
    command[at : at + 2] = ["--nodes", "2", "--rendezvous", place]
    with started(command) as first, started(command) as second:
        wait_for(lambda: (output / LAST).exists(), first)
        os.kill(workers_of(output)[number % 2], signal.SIGKILL)
        codes = [finish(process).code for process in (first, second)]
    identical = codes == [0, 0] and same_as(lab.reference(stage, processes=2), output, stage)
    return {"stage": stage, "rank": number % 2, "exit_codes": codes, "identical": identical, "ok": identical}


def try_world(lab: Lab, number: int) -> Record:
    """Go on with one process where two stopped, and the other way round; compare the metrics of two with one's."""
    stage, first = STAGES[number // 2 % 2], 2 - number % 2
    output = lab.fresh("worlds", number)
    commands = {1: lab.command(stage, output), 2: lab.processes(stage, output)}
    with started(commands[first]) as process:
        wait_for(lambda: (output / PREVIOUS).exists(), process)
        os.kill(process.pid, signal.SIGTERM)
        stopped = finish(process)
    saved = whole_checkpoint(output)
    ended = run(commands[3 - first])
    history = json.loads((output / "history.json").read_text()) if ended.code == 0 else {"train_loss": []}
    epochs = [epoch for epoch, _ in history["train_loss"]]
    facts = {"stage": stage, "from": first, "to": 3 - first, "exit_codes": [stopped.code, ended.code]}
    facts |= {"stopped_in_epoch": saved["epoch"] + bool(saved["iteration"])}
    difference = _compare_metrics(lab, stage)
    ok = ended.code == 0 and epochs == list(range(1, EPOCHS + 1)) and difference <= 1e-6
    return {**facts, "largest_difference_of_a_metric": difference, "ok": ok}


def _compare_metrics(lab: Lab, stage: str) -> float:
    """Largest difference between validation by two processes, as recorded, and by one, now, of the same weights."""
    folder = lab.reference(stage, processes=2).folder
    words = lab.words(stage, folder)
    overrides = {word[2:]: _as_value(value) for word, value in zip(words[::2], words[1::2], strict=True)}
    workflow = ConfigWorkflow(str(ROOT / CONFIGS[stage]), workflow_type="train", logging_file=False, **overrides)
    workflow.initialize()
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    evaluator.network.load_state_dict(load_tensors(folder / BEST))
    evaluator.run()
    epoch = load_tensors(folder / LAST)["best_epoch"]
    history = json.loads((folder / "history.json").read_text())
    return max(abs(value - dict(map(tuple, history[name]))[epoch]) for name, value in evaluator.state.metrics.items())


def _as_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def try_starvation(lab: Lab, number: int) -> Record:
    """Let no file grow, as on a full disk; give a folder that cannot be made; start a second run in the folder."""
    case = ("full disk", "folder cannot be made", "second run in the folder")[number % 3]
    output = lab.fresh("starvation", number)
    command = lab.command("segmentation", output)
    if case == "folder cannot be made":
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("a file stands where the folder should be")
        ended = run(command)
        facts = {"case": case, "exit_code": ended.code, "last_line": _anonymous(ended.last_line, lab)}
        return {**facts, "ok": ended.code == 2 and str(output) in ended.last_line}
    with started(command) as process:
        wait_for(lambda: (output / PREVIOUS).exists(), process)
        if case == "full disk":
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))  # last.pt is larger
        else:
            os.kill(process.pid, signal.SIGSTOP)  # it would be done before the second one has started
            second = run(command)
            os.kill(process.pid, signal.SIGCONT)
        ended = finish(process)
    judged = ended if case == "full disk" else second
    facts = {"case": case, "exit_code": judged.code, "last_line": _anonymous(judged.last_line, lab)}
    named = "cannot be written" in judged.last_line if case == "full disk" else str(process.pid) in judged.last_line
    clean = not leftovers(output) and load_tensors(output / BEST, sealed=True) is not None
    code = run(command).code
    identical = code == 0 and same_as(lab.reference("segmentation"), output, "segmentation")
    return {**facts, "identical_after": identical, "ok": judged.code == 2 and named and clean and identical}


def try_soak(lab: Lab, number: int) -> Record:
    """Train 200 epochs and watch memory and open files, each as the median of early and of late samples."""
    stage = STAGES[number % 2]
    output = lab.fresh("soak", number)
    epochs = 200
    samples: list[tuple[float, int, int]] = []
    with started(lab.command(stage, output, epochs=epochs)) as process:
        wait_for(lambda: (output / LAST).exists(), process)
        while process.poll() is None and not (output / "history.json").exists():
            with contextlib.suppress(OSError, IndexError, ValueError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                memory = int(status.split("VmRSS:")[1].split()[0])
                samples.append((time.monotonic(), memory, len(os.listdir(f"/proc/{process.pid}/fd"))))
            time.sleep(0.2)
        ended = finish(process)
    fifth = len(samples) // 5
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]
    memory = [sorted(sample[1] for sample in part)[len(part) // 2] for part in (early, late)]
    files = [sorted(sample[2] for sample in part)[len(part) // 2] for part in (early, late)]
    growth = memory[1] / memory[0] - 1
    facts = {"stage": stage, "epochs": epochs, "exit_code": ended.code, "samples": len(samples)}
    facts |= {"memory_kib": memory, "growth": round(growth, 4), "open_files": files}
    return {**facts, "ok": ended.code == 0 and growth < 0.05 and files[0] == files[1]}


def try_cost(lab: Lab, number: int) -> Record:
    """Time the checkpoints of the default network: weights, moving average and two moments of the optimizer."""
    folder = lab.fresh("cost", number)
    network = UNet(filters=(16, 32, 64, 128), instance_norm=True)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.rand(2, 1, 32, 32)).mean().backward()
    optimizer.step()
    engine = Engine(lambda *_: None)
    ema = MovingAverage(network, momentum=0.01, momentum_warmup=0.2, warmup_iters=10)
    ema.attach(engine)
    state = {"network": network, "ema": ema, "optimizer": optimizer}
    Checkpoint(folder, Engine(lambda *_: None), network, state, time_share=math.inf).attach(engine)
    seconds: list[float] = []
    engine.add_event_handler(Events.EPOCH_STARTED, lambda _: seconds.append(-time.monotonic()))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: seconds.append(seconds.pop() + time.monotonic()))
    engine.run([0], max_epochs=20)
    size = (folder / LAST).stat().st_size / 1e6
    shutil.rmtree(folder)
    return {"seconds": round(sorted(seconds)[10], 3), "megabytes": round(size, 1), "ok": True}


def _anonymous(line: str, lab: Lab) -> str:
    return line.replace(str(lab.folder), "…")


def try_node(lab: Lab, number: int) -> Record:
    """Kill -9 the DICOM node at random moments while images come in."""
    from node_kills import kill_receiving  # which needs pynetdicom

    return kill_receiving(lab.fresh("node", number), ROOT / "models", number)


def try_node_sending(lab: Lab, number: int) -> Record:
    """Kill -9 the DICOM node at random moments while it sends."""
    from node_kills import kill_sending

    return kill_sending(lab.fresh("node_sending", number), ROOT / "models", number)


def try_node_disk(lab: Lab, number: int) -> Record:
    """Fill the disk under the DICOM node."""
    from node_disk import fill_disk

    return fill_disk(lab.fresh("node_disk", number), ROOT / "models", number)


def try_node_peers(lab: Lab, number: int) -> Record:
    """Send answers of the DICOM node to a peer that makes trouble."""
    from node_peers import trouble_peer

    return trouble_peer(lab.fresh("node_peers", number), ROOT / "models", number)


def try_node_load(lab: Lab, number: int) -> Record:
    """Send many images through the DICOM node, and the same through scripts/predict.py."""
    from node_load import carry_load

    return carry_load(lab.fresh("node_load", number), ROOT / "models", lab.images)


DRILLS: dict[str, tuple[Callable[[Lab, int], Record], int]] = {
    "saving": (try_saving, 30),
    "saving_monai": (partial(try_saving, ours=False), 30),
    "kills": (try_kill, 50),
    "resume": (try_resume, 2 * (EPOCHS - 1)),
    "signals": (try_signal, 16),
    "corruption": (try_corruption, 25),
    "not_finite": (try_not_finite, 6),
    "starvation": (try_starvation, 3),
    "workers": (try_worker, 11),
    "nodes": (try_nodes, 2),
    "worlds": (try_world, 4),
    "soak": (try_soak, 2),
    "cost": (try_cost, 1),
    "node": (try_node, 1),
    "node_sending": (try_node_sending, 2),
    "node_disk": (try_node_disk, 3),
    "node_peers": (try_node_peers, 5),
    "node_load": (try_node_load, 1),
}


def drill(lab: Lab, name: str, tries: int | None = None) -> list[Record]:
    """Do the tries of a drill that are not in the log yet; return the records of all."""
    one_try, planned = DRILLS[name]
    log = lab.folder / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    records = [record for record in map(json.loads, lines) if record["drill"] == name]
    for number in range(len(records), planned if tries is None else tries):
        start = time.monotonic()
        facts = one_try(lab, number)
        record = {"drill": name, "try": number, **facts, "took": round(time.monotonic() - start, 1)}
        with open(log, "a") as file:
            file.write(json.dumps({**record, "commit": commit_of(ROOT)}) + "\n")
        print(json.dumps(record, ensure_ascii=False), flush=True)
        records.append(record)
    return records


def main() -> int:
    """Returns 0 if every try went as it should; the control, MONAI's saver, is only recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the runs and the log")
    parser.add_argument("--only", nargs="+", choices=DRILLS, default=list(DRILLS), help="default: all")
    parser.add_argument("--tries", type=int, help="default: as planned for each")
    parser.add_argument("--images", type=int, default=300, help="of node_load; default: %(default)s")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    lab = Lab(options.folder, options.images)
    failed = 0
    for name in options.only:
        records = drill(lab, name, options.tries)
        good = sum(record["ok"] for record in records)
        print(f"{name}: {good} of {len(records)}", flush=True)
        failed += len(records) - good if name != "saving_monai" else 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
