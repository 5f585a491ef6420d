from __future__ import annotations

import pytest
from sqlalchemy import Engine, event

from clipstudy.job import Selection, Status
from clipstudy.queue import jobs
from clipstudy.queue.enqueue import differences
from clipstudy.spec import WHOLE_MODEL
from tests.queue.samples import ALL, cells, claim, fail, group, hand_over, queued_in_older_groups, record_all, statuses


def test_a_plan_becomes_rows_in_its_order(engine: Engine) -> None:
    plan = [*cells(group("bert"), group("gpt2", "wc")), (group("bert", "tune"), (WHOLE_MODEL,))]
    told = jobs.enqueue(engine, plan, priority=2, max_tries=5)
    rows = jobs.rows(engine)
    assert (told.new, told.revived, told.superseded, told.present, told.changed) == (9, 0, 0, {}, ())
    assert [(job.model, job.task, job.layer) for job in rows] == [
        *(("bert", "depth", k) for k in range(4)),
        *(("gpt2", "wc", k) for k in range(4)),
        ("bert", "tune", WHOLE_MODEL),
    ]
    assert [job.label for job in rows[:2]] == ["embedding", "block 1"] and rows[-1].label == "whole model"
    assert {(job.status, job.priority, job.max_tries, job.attempt, job.tries) for job in rows} == {
        (Status.QUEUED, 2, 5, 0, 0)
    }


def test_twice_gives_nothing_new(engine: Engine) -> None:
    plan = cells(group("bert"), group("gpt2"))
    jobs.enqueue(engine, plan)
    hand_over(engine, claim(engine).jobs[0])
    told = jobs.enqueue(engine, plan)
    assert told.new == told.revived == told.superseded == 0
    assert told.present == {Status.QUEUED: 4, Status.RUNNING: 3, Status.COMPUTED: 1}


def test_layers_asked_for_later_join_their_group(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (2,))])
    told = jobs.enqueue(engine, [(group(), (0, 1, 2))])
    assert told.new == 2 and told.present == {Status.QUEUED: 1}
    assert claim(engine).layers == (0, 1, 2)


def test_changed_settings_make_a_new_group_and_say_what_changed(engine: Engine) -> None:
    old = group(blocks=5)
    jobs.enqueue(engine, cells(old))
    done, computed, failed, _ = claim(engine, layers_per_batch=4).jobs
    hand_over(engine, done)
    record_all(engine)
    hand_over(engine, computed)
    fail(engine, failed, retry=False)
    jobs.cancel(engine, Selection(layers=(4,)))
    told = jobs.enqueue(engine, cells(group(blocks=5, epochs=10)))
    assert (told.new, told.superseded) == (6, 3)
    assert told.changed == (("bert", "depth", {"task.options.epochs": (4, 10)}),)
    gone = [Status.DONE, Status.COMPUTED, Status.SUPERSEDED, Status.RUNNING, Status.SUPERSEDED, Status.SUPERSEDED]
    assert statuses(engine)[:6] == gone
    assert {job.status for job in jobs.rows(engine)} == {Status.QUEUED}
    assert claim(engine).group.task.options["epochs"] == 10


def test_a_claimed_row_runs_its_own_settings_whatever_was_enqueued_since(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    batch = claim(engine)
    jobs.enqueue(engine, cells(group(epochs=10)))
    assert jobs.group_of(engine, batch.group_id)[0].task.options["epochs"] == 4
    assert hand_over(engine, batch.jobs[0])


def test_settings_that_come_back_are_revived_and_are_the_newest(engine: Engine) -> None:
    first, second = cells(group()), cells(group(epochs=10))
    jobs.enqueue(engine, first)
    hand_over(engine, claim(engine, layers_per_batch=1).jobs[0])
    record_all(engine)
    jobs.enqueue(engine, second)
    told = jobs.enqueue(engine, first, priority=3)
    assert (told.new, told.revived, told.superseded, told.present) == (0, 3, 4, {Status.DONE: 1})
    assert told.changed == (("bert", "depth", {"task.options.epochs": (10, 4)}),)
    assert told.returned == ()
    rows = jobs.rows(engine)
    assert [job.status for job in rows] == [Status.DONE, *[Status.QUEUED] * 3]
    assert {job.digest for job in rows} == {group().digest} and rows[1].priority == 3
    assert queued_in_older_groups(engine) == 0


def test_settings_that_come_back_with_all_results_are_told(engine: Engine) -> None:
    """Nothing of them will run, and figures show what ran last."""
    first, second = cells(group(blocks=1)), cells(group(blocks=1, epochs=10))
    jobs.enqueue(engine, first)
    for job in claim(engine).jobs:
        hand_over(engine, job)
    record_all(engine)
    assert jobs.enqueue(engine, second).returned == ()
    assert jobs.enqueue(engine, first, dry_run=True).returned == (("bert", "depth"),)
    assert jobs.enqueue(engine, first).returned == (("bert", "depth"),)
    assert jobs.enqueue(engine, first).returned == ()


def test_what_is_revived_need_not_wait_for_what_it_waited_for(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    fail(engine, claim(engine).jobs[0])
    jobs.enqueue(engine, cells(group(epochs=10)))
    assert jobs.enqueue(engine, [(group(), (0,))]).revived == 1
    assert claim(engine).layers == (0,)


def test_cancelled_rows_are_revived_with_all_tries(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    fail(engine, claim(engine).jobs[0])
    jobs.cancel(engine, ALL)
    told = jobs.enqueue(engine, cells(group()))
    assert (told.new, told.revived, told.present) == (0, 4, {})
    row = jobs.rows(engine)[0]
    assert (row.status, row.tries, row.attempt, row.run_after, row.worker) == (Status.QUEUED, 0, 1, None, None)
    assert claim(engine).layers == (0, 1, 2, 3)


def test_only_the_layers_asked_for_are_revived(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    jobs.cancel(engine, ALL)
    assert jobs.enqueue(engine, [(group(), (1,))]).revived == 1
    assert claim(engine).layers == (1,)


def test_an_edit_that_only_shows_is_written_into_the_group(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    told = jobs.enqueue(engine, cells(group(label="BERT (base)", batch_size=64)))
    assert (told.new, told.superseded, told.changed) == (0, 0, ())
    batch = claim(engine)
    assert (batch.group.model.label, batch.group.model.batch_size) == ("BERT (base)", 64)


def test_dry_run_tells_the_same_and_writes_nothing(engine: Engine) -> None:
    assert jobs.enqueue(engine, cells(group()), dry_run=True).new == 4
    assert jobs.rows(engine, newest_only=False) == []
    jobs.enqueue(engine, cells(group()))
    jobs.cancel(engine, Selection(layers=(0,)))
    plan = cells(group(epochs=10), group("gpt2"))
    before = jobs.rows(engine, newest_only=False)
    foretold = jobs.enqueue(engine, plan, dry_run=True)
    assert jobs.rows(engine, newest_only=False) == before
    assert foretold == jobs.enqueue(engine, plan) and foretold.superseded == 4


def test_a_priority_raises_its_group_and_never_lowers_it(engine: Engine) -> None:
    jobs.enqueue(engine, [(group(), (0, 1))], priority=1)
    jobs.enqueue(engine, [(group(), (0, 1, 2))], priority=5)
    assert [job.priority for job in jobs.rows(engine)] == [5, 5, 5]
    jobs.enqueue(engine, [(group(), (0, 1, 2))])
    assert [job.priority for job in jobs.rows(engine)] == [5, 5, 5]


@pytest.mark.parametrize("name", ["it's", "50%", "a:b", 'say "x"', "back\\slash", "%(x)s", "ünï"])
def test_names_are_kept_whatever_is_in_them(engine: Engine, name: str) -> None:
    jobs.enqueue(engine, cells(group(name, name, study=name)))
    job = claim(engine, prefer_model=name).jobs[0]
    assert (job.study, job.model, job.task) == (name, name, name)


def test_studies_do_not_touch_one_another(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group(study="one")))
    told = jobs.enqueue(engine, cells(group(study="two", epochs=9)))
    assert (told.new, told.superseded, told.changed) == (4, 0, ())
    assert {job.study for job in jobs.rows(engine)} == {"one", "two"}


def test_the_number_of_statements_does_not_grow_with_the_study(engine: Engine) -> None:
    def statements(plan: list[tuple[object, tuple[int, ...]]]) -> int:
        seen: list[str] = []
        event.listen(engine, "before_cursor_execute", lambda *a: seen.append(a[2]))
        jobs.enqueue(engine, plan)  # type: ignore[arg-type]
        return len(seen)

    few = statements(list(cells(group("a"), group("b"))))
    many = statements(list(cells(*(group(f"m{i}", f"t{j}") for i in range(6) for j in range(8)))))
    assert few == many <= 20


def test_asking_twice_for_one_cell_in_one_call_is_a_bug(engine: Engine) -> None:
    with pytest.raises(ValueError, match="twice"):
        jobs.enqueue(engine, cells(group(), group(epochs=9)))


def test_differences_name_what_is_gone_and_what_is_new() -> None:
    old, new = group(), group(revision="abc")
    assert differences(old, new) == {"model.revision": (None, "abc")}
    assert differences(old, group(label="x")) == {}
