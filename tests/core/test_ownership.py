"""One folder has one owner at a time; a second one is told who, and a killed one is none."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from forks import Fork

from absence_plugins.core import AbsenceWarning, files, locks, ownership
from absence_plugins.core.files import whole_file, write_whole
from absence_plugins.core.ownership import FILE, FolderInUse, Owner, own_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

Say = Callable[[str], None]


def owning(folder: Path, environment: dict[str, str] | None = None) -> Callable[[Say], None]:
    """Owns the folder until it is killed."""

    def work(say: Say) -> None:
        os.environ.update(environment or {})
        try:
            with own_folder(folder):
                say("ready")
                time.sleep(60)
        except FolderInUse as error:
            say(str(error))

    return work


# -- the owner --------------------------------------------------------------------------------------------------------


def test_a_second_process_is_told_who_owns_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership.sys, "argv", ["absence-plugins", "patches", "my photos"])
    first = Fork(owning(tmp_path / "state"))
    assert first.line() == "ready"
    with pytest.raises(FolderInUse) as told, own_folder(tmp_path / "state"):
        pass
    assert f"{tmp_path / 'state'} is in use by process {first.pid} on " in str(told.value)
    assert "absence-plugins patches 'my photos'" in str(told.value)
    assert "wait until it has ended, or name another folder" in str(told.value)
    with own_folder(tmp_path / "another"):
        pass
    first.kill()
    with own_folder(tmp_path / "state"):  # the system gives back what a killed process held
        assert (tmp_path / "state" / FILE).is_file()
    assert not (tmp_path / "state" / FILE).exists()


def test_a_folder_that_stays_empty_goes_again(tmp_path: Path) -> None:
    with own_folder(tmp_path / "new"):
        pass
    (tmp_path / "old").mkdir()
    with own_folder(tmp_path / "old"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="existing file"), own_folder(tmp_path / "file"):
        pass


def test_one_of_two_calls_in_a_process_is_refused_and_nesting_is_not(tmp_path: Path) -> None:
    told: list[str] = []

    def other() -> None:
        try:
            with own_folder(tmp_path):
                told.append("owned")
        except FolderInUse as error:
            told.append(str(error))

    def run_other() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    (tmp_path / "link").symlink_to(tmp_path)
    with own_folder(tmp_path):
        with own_folder(tmp_path / "link"):  # the same folder by another name
            run_other()
        run_other()
    run_other()
    assert [f"process {os.getpid()} (this one)" in line for line in told] == [True, True, False]
    assert told[2] == "owned"


def test_the_worker_of_a_killed_owner_does_not_hold_the_folder(tmp_path: Path) -> None:
    """As the workers of a DataLoader, which end some seconds after the process that they read for."""

    def work(say: Say) -> None:
        with own_folder(tmp_path):
            worker = os.fork()
            if not worker:
                time.sleep(60)
                os._exit(0)
            say(str(worker))
            time.sleep(60)

    owner = Fork(work)
    worker = int(owner.line())
    try:
        with pytest.raises(FolderInUse), own_folder(tmp_path):
            pass
        owner.kill()
        with own_folder(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_ranks_of_one_run_own_it_together_and_a_stranger_does_not(tmp_path: Path) -> None:
    run = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "4000", "TORCHELASTIC_RUN_ID": "a"}
    ranks = [Fork(owning(tmp_path, run)) for _ in range(2)]
    assert [rank.line() for rank in ranks] == ["ready", "ready"]
    other = Fork(owning(tmp_path))
    assert "is in use by process" in other.line()
    assert other.wait() == 0
    ranks[0].kill()
    with pytest.raises(FolderInUse), own_folder(tmp_path):  # the second rank still works there
        pass
    ranks[1].kill()
    with own_folder(tmp_path):
        pass


def test_ranks_of_another_run_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "GROUP_PATIENCE", 0.1)
    run = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "4000", "TORCHELASTIC_RUN_ID": "a"}
    first = Fork(owning(tmp_path, run))
    assert first.line() == "ready"
    second = Fork(owning(tmp_path, {**run, "MASTER_PORT": "4001"}))
    assert "is in use by process" in second.line()
    assert second.wait() == 0
    first.kill()


def test_on_a_full_disk_the_lock_alone_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ownership.os, "ftruncate", full)
    first = Fork(owning(tmp_path))
    assert first.line() == "ready"
    with pytest.raises(FolderInUse, match="in use by another process"), own_folder(tmp_path):
        pass
    first.kill()


@pytest.mark.parametrize("kind", ["no flock", "refused"])
def test_without_locks_a_file_says_who(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        LOCK_EX = LOCK_SH = LOCK_NB = 0

        def flock(self, *_: Any) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_locks", None if kind == "no flock" else Refusing())
    first = Fork(owning(tmp_path))
    assert first.line() == "ready"
    told = pytest.raises(FolderInUse, match=rf"process {first.pid} .*if it has ended, delete .*{FILE}")
    with told, own_folder(tmp_path):
        pass
    first.kill()
    with pytest.warns(AbsenceWarning, match="has no locks"), own_folder(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("group", ["", "localhost 4000 a"])
def test_without_locks_a_killed_owner_with_our_own_number_is_none_and_another_thread_is_one(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, where every run is process 1 of the same host."""
    monkeypatch.setattr(locks, "_locks", None)
    monkeypatch.setattr(ownership, "_group", lambda: group)
    monkeypatch.setattr(ownership, "GROUP_PATIENCE", 0.1)
    (tmp_path / FILE).write_text(json.dumps(asdict(Owner.this())))
    told: list[str] = []

    def other() -> None:
        try:
            with own_folder(tmp_path):
                told.append("owned")
        except FolderInUse as error:
            told.append(str(error))

    thread = threading.Thread(target=other)

    def run_other() -> None:
        with own_folder(tmp_path):
            thread.start()
            thread.join()

    with pytest.warns(AbsenceWarning, match="has no locks"):
        run_other()
    assert [f"process {os.getpid()} (this one)" in line for line in told] == [True]
    assert "delete" not in told[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("process", "code", "error", "runs"),
    [(7, 259, 0, True), (7, 1, 0, False), (7, None, 5, True), (None, 0, 87, False), (None, 0, 5, True)],
    ids=["runs", "ended", "cannot be asked", "none", "of another user"],
)
def test_windows_is_asked_whether_a_process_runs(
    process: int | None, code: int | None, error: int, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []

    class Kernel:
        def __init__(self, name: str, use_last_error: bool) -> None:
            assert (name, use_last_error) == ("kernel32", True)

            def exit_code(_: int, place: Any) -> bool:
                if code is not None:
                    place._obj.value = code
                return code is not None

            self.OpenProcess = Mock(return_value=process)
            self.GetExitCodeProcess = Mock(side_effect=exit_code)
            self.CloseHandle = Mock(side_effect=closed.append)

    monkeypatch.setattr(ctypes, "WinDLL", Kernel, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: error, raising=False)
    assert ownership._is_running_on_windows(4711) is runs
    assert closed == ([7] if process else [])


# -- drafts -----------------------------------------------------------------------------------------------------------


def killed_draft(folder: Path) -> None:
    """A process that is killed while it writes ``state.pt``."""

    def work(say: Say) -> None:
        with whole_file(folder / "state.pt") as file:
            file.write(b"x" * 1000)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    assert Fork(work).wait() == -signal.SIGKILL


def test_drafts_of_killed_processes_go_at_the_next_start(tmp_path: Path) -> None:
    for _ in range(3):
        killed_draft(tmp_path)
    files._swept.clear()  # as in a new process
    write_whole(tmp_path / "another.pt", b"done")
    assert [path.name for path in tmp_path.iterdir()] == ["another.pt"]
    killed_draft(tmp_path)
    with own_folder(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "another.pt"]


def test_the_draft_of_a_running_writer_stays(tmp_path: Path) -> None:
    def work(say: Say) -> None:
        with whole_file(tmp_path / "state.pt") as file:
            say("ready")
            time.sleep(0.3)
            file.write(b"whole")

    writer = Fork(work)
    assert writer.line() == "ready"
    with own_folder(tmp_path), whole_file(tmp_path / "own.pt") as file:
        file.write(b"own")
        files.remove_drafts(tmp_path)
        assert writer.wait() == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"own.pt": b"own", "state.pt": b"whole"}


def test_drafts_of_other_hosts_go_by_their_age_and_other_files_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = [tmp_path / f".state.pt.{'0f0f'}{number:08x}.part" for number in range(2)]
    mine = [tmp_path / name for name in (".notes.part", "state.pt.0123456789ab.part", ".a.0123456789ag.part", ".owner")]
    for path in (*theirs, *mine):
        path.write_bytes(b"x")
    old = time.time() - files.STALE - 60
    for path in (theirs[1], *mine):
        os.utime(path, (old, old))
    files.remove_drafts(tmp_path)
    assert set(tmp_path.iterdir()) == {theirs[0], *mine}
    monkeypatch.setattr(locks, "_locks", None)  # without locks own drafts go by their age, too
    own = tmp_path / f".state.pt.{files._host()}00000000.part"
    own.write_bytes(b"x")
    files.remove_drafts(tmp_path)
    assert own.exists()
    os.utime(own, (old, old))
    files.remove_drafts(tmp_path)
    assert not own.exists()


def test_a_draft_that_is_swept_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = files.try_lock, []

    def late(descriptor: int, **options: Any) -> bool | None:
        if not swept:
            swept.append(next(tmp_path.iterdir()))
            swept[0].unlink()
        return real(descriptor, **options)

    monkeypatch.setattr(files, "_swept", {tmp_path})
    monkeypatch.setattr(files, "try_lock", late)
    write_whole(tmp_path / "state.pt", b"whole")
    assert len(swept) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
