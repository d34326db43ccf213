use crate::readers::machine::*;

const fn at(position: i64) -> Position {
    Position(position)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A machine that leads, whose stored cursor stands at 0 in a log that stands at `newest`.
fn leading(newest: i64) -> Machine {
    let mut machine = Machine::new(Tuning::default());
    machine.lead(true);
    machine.log_moved(at(newest));
    assert_eq!(machine.poll(ms(0)), Some(Action::Load));
    let stored = Loaded {
        position: at(0),
        paused: false,
    };
    machine.loaded(Ok(stored), ms(0), 0.0);
    machine
}

fn page(positions: std::ops::RangeInclusive<i64>) -> Page {
    Page {
        end: at(*positions.end()),
        positions: positions.map(Position).collect(),
    }
}

/// Answers whatever the machine wants of a log that ends at `end`, for as long as it wants something by itself. A part
/// with `bad` in it fails; every other has effects. What was stored and what was gone past.
fn run(machine: &mut Machine, end: i64, bad: i64) -> (Vec<Step>, Vec<i64>, usize) {
    let (mut stored, mut aside, mut handled, mut now) = (Vec::new(), Vec::new(), 0, ms(0));
    for _ in 0..1000 {
        let Some(action) = machine.poll(now) else {
            match machine.due(now).filter(|due| *due < now + ms(2_500)) {
                Some(due) => now = due.max(now + ms(1)),
                None => break,
            }
            continue;
        };
        match action {
            Action::Read(after) => machine.page(Ok(page(after.0 + 1..=end)), false, now, 0.0),
            Action::Handle(part) => {
                handled += 1;
                let is_bad = part.after < at(bad) && at(bad) <= part.up_to;
                let outcome = if is_bad {
                    Err(Failed::ForGood("bad".to_owned()))
                } else {
                    Ok(true)
                };
                machine.handled(part, outcome, now, 0.0);
            }
            Action::Advance(step) => {
                stored.push(step);
                machine.advanced(step, Ok(()), now, 0.0);
            }
            Action::GoPast(step, _) => {
                aside.push(step.to.0);
                machine.advanced(step, Ok(()), now, 0.0);
            }
            Action::NoteFailure { .. } | Action::Rest(..) => machine.noted(),
            Action::Load => {
                let position = machine.cursor.unwrap().stored;
                let paused = false;
                machine.loaded(Ok(Loaded { position, paused }), now, 0.0);
            }
        }
    }
    (stored, aside, handled)
}

#[test]
fn the_one_that_fails_is_found_by_halves_and_gone_past() {
    for bad in [1, 2, 100, 499, 500] {
        let mut machine = leading(500);
        let (stored, aside, handled) = run(&mut machine, 500, bad);
        assert_eq!(aside, [bad]);
        assert!(handled < 40, "{handled} parts for {bad}");
        let moved: i64 = stored.iter().map(|step| step.to.0 - step.from.0).sum();
        assert_eq!(moved, 499, "all others");
        assert_eq!(machine.view().reached, Some(at(500)));
    }
}

#[test]
fn what_had_no_effects_is_stored_after_a_while_or_when_the_reader_stops() {
    for stops in [false, true] {
        let mut machine = leading(3);
        assert_eq!(machine.poll(ms(0)), Some(Action::Read(at(0))));
        machine.page(Ok(page(1..=3)), false, ms(0), 0.0);
        let Some(Action::Handle(part)) = machine.poll(ms(0)) else {
            panic!("there is a page");
        };
        machine.handled(part, Ok(false), ms(1), 0.0);
        assert_eq!(machine.poll(ms(1)), None);
        assert_eq!(machine.due(ms(1)), Some(ms(2001)));
        let now = if stops { ms(1) } else { ms(2001) };
        if stops {
            machine.stop();
        }
        let step = Step {
            from: at(0),
            to: at(3),
            records: 3,
        };
        assert_eq!(machine.poll(now), Some(Action::Advance(step)));
        machine.advanced(step, Ok(()), now, 0.0);
        assert_eq!(machine.poll(now), None);
    }
}

#[test]
fn what_does_not_answer_is_asked_again_after_growing_pauses_and_sets_nothing_aside() {
    let mut machine = leading(1);
    let mut now = ms(0);
    let mut pauses = Vec::new();
    assert_eq!(machine.poll(now), Some(Action::Read(at(0))));
    machine.page(Ok(page(1..=1)), false, now, 0.0);
    while pauses.len() < 12 {
        match machine.poll(now) {
            Some(Action::Handle(part)) => {
                let away = Failed::ForNow("away".to_owned());
                machine.handled(part, Err(away), now, 1.0);
            }
            Some(Action::NoteFailure { failures, .. }) => {
                assert_eq!(failures as usize, pauses.len() + 1);
                machine.noted();
                let due = machine.due(now).unwrap();
                pauses.push((due - now).as_millis());
                now = due;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pauses[..4], [100, 200, 400, 800]);
    assert_eq!(pauses[11], 60_000);
}

#[test]
fn a_pause_a_rewinding_and_a_lost_lease_take_effect_at_once() {
    let mut machine = leading(9);
    assert_eq!(machine.poll(ms(0)), Some(Action::Read(at(0))));
    machine.page(Ok(page(1..=9)), false, ms(0), 0.0);
    machine.changed();
    assert_eq!(
        machine.poll(ms(0)),
        Some(Action::Load),
        "before the page that is there"
    );
    let load = |machine: &mut Machine, position, paused| {
        let position = at(position);
        machine.loaded(Ok(Loaded { position, paused }), ms(0), 0.0);
    };
    load(&mut machine, 0, true);
    assert_eq!(machine.poll(ms(0)), None);
    assert!(machine.view().paused);
    machine.changed();
    assert_eq!(machine.poll(ms(0)), Some(Action::Load));
    load(&mut machine, 4, false);
    assert_eq!(machine.poll(ms(0)), Some(Action::Read(at(4))));
    machine.lead(false);
    assert_eq!(machine.poll(ms(0)), None);
    machine.lead(true);
    assert_eq!(machine.poll(ms(0)), Some(Action::Load));
}

#[test]
fn what_is_stuck_rests_until_somebody_looks() {
    let mut machine = leading(1);
    assert_eq!(machine.poll(ms(0)), Some(Action::Read(at(0))));
    machine.page(Err(Failed::Stuck("gone".to_owned())), false, ms(0), 0.0);
    assert_eq!(machine.poll(ms(0)), Some(Action::Rest(at(0), "gone".to_owned())));
    machine.noted();
    assert_eq!(machine.poll(ms(0)), Some(Action::Load));
    let (position, paused) = (at(0), true);
    machine.loaded(Ok(Loaded { position, paused }), ms(0), 0.0);
    assert_eq!(machine.poll(ms(0)), None);
}
