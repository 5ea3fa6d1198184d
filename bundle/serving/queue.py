# SPDX-License-Identifier: Apache-2.0
"""The node's memory: which images were received, what answers them, and what of it has reached whom.

One SQLite file beside the images and the answers. What a method has done outlasts a kill and a power cut once it has
returned; until then nothing of it has happened.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import InputError
from bundle.files import make_folder

logger = logging.getLogger(__name__)

WAITING, ANSWERED, FAILED = "waiting", "answered", "failed"
"""States of an image: to be predicted; its answers are on the disk; it will have none, for a reason that is kept."""

SENT, DROPPED = "sent", "dropped"
"""States of a delivery besides WAITING; dropped: its peer is configured no more."""

REFUSED, PASSED_OVER, TROUBLE = "refused", "passed over", "trouble"
"""Kinds of notes: images refused, objects that are none of ours to predict, and what keeps the node from its work."""

MAX_ERRORS = 5
"""Times that the prediction of an image may end with an error of the node, before it is held to be of the image."""

PATIENCE, FIRST_WAIT, LONGEST_WAIT = 3, 10.0, 3600.0
"""Times that the node may end while an image is predicted before it waits behind the others; for how many seconds then,
doubled each time, and how many at most. Nobody knows why the node ended: the image is never given up for it."""

MAX_NOTES = 200
"""Different reasons that are kept; a sender could make up more."""

_SCHEMA = """
create table if not exists images (
    number integer primary key, uid text not null unique, study text not null, side text not null, owner text not null,
    received real not null, state text not null default 'waiting', reason text not null default '', done real,
    begun integer not null default 0, crashes integer not null default 0, errors integer not null default 0,
    next_try real not null default 0);
create index if not exists images_by_state on images (state, number);
create index if not exists images_by_study on images (study);
create table if not exists cases (name text primary key, image text not null);
create index if not exists cases_by_image on cases (image);
create table if not exists answers (
    uid text primary key, sop_class text not null, file text not null, image text, study text not null);
create index if not exists answers_by_image on answers (image);
create index if not exists answers_by_study on answers (study);
create table if not exists deliveries (
    answer text not null, peer text not null, state text not null default 'waiting', tries integer not null default 0,
    next_try real not null default 0, reason text not null default '', sent real,
    commitment text not null default '', request text not null default '', requested real, primary key (answer, peer));
create index if not exists deliveries_by_peer on deliveries (peer, state, next_try);
create table if not exists studies (
    uid text primary key, last_image real not null, summaries integer not null default 0,
    is_open integer not null default 1);
create table if not exists notes (
    kind text not null, reason text not null, count integer not null, last real not null, primary key (kind, reason));
"""


@dataclass(frozen=True)
class Image:
    """A received image.

    Args:
        uid: its SOP Instance UID.
        study: its Study Instance UID.
        side: "L", "R" or "".
        owner: digest of whose it is: patient, study and series.
    """

    uid: str
    study: str
    side: str
    owner: str


@dataclass(frozen=True)
class Answer:
    """A DICOM object of ours: its SOP Instance UID, its class, its file below the node's folder, and its study."""

    uid: str
    sop_class: str
    file: str
    study: str


class Queue:
    """Images and answers on disk; every method may be called from any thread.

    Args:
        folder: of the node; gets ``queue.sqlite``, ``received/`` and ``answers/``.
        peers: names of those who get the answers.

    Raises:
        InputError: from every method but `note`: the disk is full, or the file cannot be read or written.
    """

    def __init__(self, folder: Path, peers: Sequence[str]) -> None:
        self.folder, self.peers = folder, tuple(peers)
        self.received, self.answers = folder / "received", folder / "answers"
        for path in (self.received, self.answers):
            make_folder(path)
        self._lock = threading.RLock()
        with self._told():
            self._database = sqlite3.connect(folder / "queue.sqlite", check_same_thread=False, isolation_level=None)
            self._database.execute("pragma journal_mode = wal")
            self._database.execute("pragma synchronous = full")
            self._database.executescript(_SCHEMA)
        self._recover()

    def path(self, uid: str) -> Path:
        """Where the file of an image lies, or will."""
        return self.received / f"{uid}.dcm"

    def _recover(self) -> None:
        """Go on after a kill: images whose files got no success are forgotten, what was being predicted is suspect."""
        with self._transaction() as database:
            self._suspect_begun(database)
            marks = ", ".join("?" * len(self.peers))
            database.execute(
                f"update deliveries set state = '{DROPPED}' where state = 'waiting' and peer not in ({marks})",
                self.peers,
            )
            known = {row[0] for row in database.execute("select uid from images")}
        for path in self.received.glob("*.dcm"):
            if path.stem not in known:
                path.unlink(missing_ok=True)

    def note_crash(self) -> None:
        """What is being predicted is suspect: what predicts has died."""
        with self._transaction() as database:
            self._suspect_begun(database)

    def _suspect_begun(self, database: sqlite3.Connection) -> None:
        database.execute("update images set begun = 0, crashes = crashes + 1 where begun and state = 'waiting'")
        database.execute(
            "update images set next_try = ? + min(?, ? * (1 << min(crashes - ?, 20))), "
            "reason = 'the node ended ' || crashes || ' times while it was predicted; it is tried again' "
            "where state = 'waiting' and crashes >= ?",
            (time.time(), LONGEST_WAIT, FIRST_WAIT, PATIENCE, PATIENCE),
        )

    def owner(self, uid: str) -> str | None:
        """The digest that an image was received with; None for one that is not known."""
        row = self.one("select owner from images where uid = ?", uid)
        return None if row is None else row[0]

    def add(self, image: Image) -> None:
        """Keep an image, whose file is in its place."""
        now = time.time()
        with self._transaction() as database:
            database.execute(
                "insert into images (uid, study, side, owner, received) values (?, ?, ?, ?, ?)",
                (image.uid, image.study, image.side, image.owner, now),
            )
            database.execute(
                "insert into studies (uid, last_image) values (?, ?) "
                "on conflict (uid) do update set last_image = excluded.last_image, is_open = 1",
                (image.study, now),
            )

    def take(self, most: int) -> list[str]:
        """The next images to predict, first come first served; one that the node has ended with before comes alone."""
        with self._transaction() as database:
            rows = database.execute(
                "select uid, crashes + errors from images where state = 'waiting' and next_try <= ? "
                "order by crashes >= ?, number limit ?",
                (time.time(), PATIENCE, most),
            ).fetchall()
            suspects = [uid for uid, faults in rows if faults]
            uids = suspects[:1] or [uid for uid, _ in rows]
            database.executemany("update images set begun = 1 where uid = ?", [(uid,) for uid in uids])
        return uids

    def give_back(self, uids: Sequence[str], suspect: bool) -> None:
        """Let images wait again; with ``suspect``, each of them may be why they were not predicted."""
        with self._transaction() as database:
            database.executemany(
                "update images set begun = 0, errors = errors + ? where uid = ? and state = 'waiting'",
                [(int(suspect), uid) for uid in uids],
            )
            database.execute(
                "update images set state = 'failed', done = ?, reason = ? where state = 'waiting' and errors > ?",
                (time.time(), "its prediction ended with an error of the node, which is in its log", MAX_ERRORS),
            )

    def finish(self, uid: str, cases: Sequence[str], answers: Sequence[Answer], reason: str = "") -> None:
        """Note that an image is done: its cases in the records and its answers, which are on the disk; or why not."""
        state = ANSWERED if cases else FAILED
        with self._transaction() as database:
            database.execute(
                "update images set state = ?, reason = ?, done = ?, begun = 0 where uid = ?",
                (state, reason, time.time(), uid),
            )
            database.executemany("insert or replace into cases values (?, ?)", [(case, uid) for case in cases])
            self._insert_answers(database, answers, uid)

    def close_study(self, study: str, answers: Sequence[Answer], last_image: float) -> None:
        """Note that a study is summarised as of its last image; one that came since opens it again."""
        with self._transaction() as database:
            database.execute(
                "update studies set summaries = summaries + 1, is_open = (last_image > ?) where uid = ?",
                (last_image, study),
            )
            self._insert_answers(database, answers, None)

    def _insert_answers(self, database: sqlite3.Connection, answers: Sequence[Answer], image: str | None) -> None:
        rows = [(answer.uid, answer.sop_class, answer.file, image, answer.study) for answer in answers]
        database.executemany("insert into answers values (?, ?, ?, ?, ?)", rows)
        pairs = [(answer.uid, peer) for answer in answers for peer in self.peers]
        database.executemany("insert into deliveries (answer, peer) values (?, ?)", pairs)

    def forget(self, study: str, images: Sequence[str], answers: Sequence[str]) -> None:
        """Forget images and answers whose files are deleted, and their study unless more of it came meanwhile."""
        with self._transaction() as database:
            database.executemany("delete from deliveries where answer = ?", [(uid,) for uid in answers])
            database.executemany("delete from answers where uid = ?", [(uid,) for uid in answers])
            database.executemany("delete from cases where image = ?", [(uid,) for uid in images])
            database.executemany("delete from images where uid = ?", [(uid,) for uid in images])
            database.execute(
                "delete from studies where uid = ? and not exists (select 1 from images where study = ?)",
                (study, study),
            )

    def note(self, kind: str, reason: str) -> None:
        """Count something that happened; of more than `MAX_NOTES` reasons the oldest is forgotten.

        On a full disk it is in the log alone: whoever notes something goes on with his work.
        """
        with contextlib.suppress(InputError), self._transaction() as database:
            database.execute(
                "insert into notes values (?, ?, 1, ?) "
                "on conflict (kind, reason) do update set count = count + 1, last = excluded.last",
                (kind, reason, time.time()),
            )
            database.execute(
                "delete from notes where rowid in (select rowid from notes order by last desc limit -1 offset ?)",
                (MAX_NOTES,),
            )
            return
        logger.error("not noted: %s: %s", kind, reason)

    def write(self, statement: str, *values: object) -> None:
        """Run one statement that changes something."""
        with self._transaction() as database:
            database.execute(statement, values)

    def all(self, statement: str, *values: object) -> list[tuple]:
        """All rows of a question."""
        with self._lock, self._told():
            return self._database.execute(statement, values).fetchall()

    def one(self, statement: str, *values: object) -> tuple | None:
        """The first row of a question, or None."""
        return next(iter(self.all(statement, *values)), None)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            self._database.execute("begin immediate")
            try:
                yield self._database
                self._database.execute("commit")
            except BaseException:
                if self._database.in_transaction:  # a full disk may have ended it already
                    self._database.execute("rollback")
                raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            mend = "free space on its disk, or give another --folder"
            raise InputError(self.folder, f"the node's queue cannot be used ({error})", mend) from error
