"""As in a small container: /dev/shm of 64 MB, no HOME, a read-only checkout, and no folder for temporary files."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, mini

# In a mount namespace of its own: nothing outside changes. /mnt is the container's volume.
CONTAINER = """
set -e
mount -t tmpfs -o size=64m tmpfs /dev/shm
mount -t tmpfs -o size=256m tmpfs /mnt
cp -r "$GIVEN" /mnt/given
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
for folder in /tmp /var/tmp; do mount -t tmpfs -o ro tmpfs $folder; done
set +e
cd /mnt
run() {
    env -i PATH="$PATH" HOME=/proc/nobody OMP_NUM_THREADS=1 timeout -k 5 120 "$@" > out 2> err
    echo "exit code $?: $(tail -n 1 err)"
}
run "$PYTHON" "$ROOT/main.py" --config given/mini.conf --database_path given/corpus --output_dir runs --num_workers 2
ls given/corpus/*_eval/flac/*.flac | head -n 2 > list.txt
run "$PYTHON" "$ROOT/inference.py" --list list.txt --workers 2 --save_json r.json --visualize
run "$PYTHON" "$ROOT/evaluation.py" given/scores.txt --json metrics.json
run "$PYTHON" "$ROOT/data_utils.py" check given/corpus --num_workers 2
ls runs/*/weights/swa.pth inference_results/*.png metrics.json
cat r.json
"""


@pytest.mark.slow
def test_everything_works_in_a_small_container(tiny_corpus, tmp_path):
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace (unshare -m, as root)")
    mini(tmp_path, tiny_corpus)
    shutil.copytree(tiny_corpus, tmp_path / "corpus")
    trials = "".join(f"u{n} {'A07 spoof' if n % 2 else '- bonafide'} {n % 5}\n" for n in range(40))
    (tmp_path / "scores.txt").write_text(trials)
    environment = {"ROOT": str(ROOT), "GIVEN": str(tmp_path), "PYTHON": sys.executable, "PATH": os.environ["PATH"]}
    done = subprocess.run(["unshare", "-m", "bash", "-c", CONTAINER], env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["exit code 0"] * 4, done.stdout + done.stderr
    written = [line.rpartition("/")[2] for line in lines]
    assert sum(name.endswith(".png") for name in written) == 2 and {"metrics.json", "swa.pth"} <= set(written)
    document = json.loads(done.stdout[done.stdout.index("{") :])
    assert [result["score"] is not None for result in document["results"]] == [True] * 2
