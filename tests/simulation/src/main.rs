//! `maru-simulation`: plays seeds and says which fail.

use std::process::ExitCode;

/// Seeds to play.
struct Arguments {
    from: u64,
    seeds: u64,
    verbose: bool,
}

const USAGE: &str = "usage: maru-simulation [--seeds N] [--from S] [--seed S] [-v]";

fn arguments(mut given: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments {
        from: 0,
        seeds: maru_simulation::SEEDS,
        verbose: false,
    };
    while let Some(name) = given.next() {
        let mut number = || given.next().and_then(|value| value.parse().ok());
        match &*name {
            "--seeds" => arguments.seeds = number()?,
            "--from" => arguments.from = number()?,
            "--seed" => (arguments.from, arguments.seeds) = (number()?, 1),
            "-v" => arguments.verbose = true,
            _ => return None,
        }
    }
    Some(arguments)
}

fn main() -> ExitCode {
    let Some(Arguments { from, seeds, verbose }) = arguments(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let (mut failed, mut happenings, mut events) = (Vec::new(), 0, 0);
    for seed in from..from.saturating_add(seeds) {
        let report = maru_simulation::run(seed, verbose);
        happenings += report.happenings;
        events += report.events;
        if !report.findings.is_empty() {
            println!("seed {seed} fails:");
            report
                .findings
                .iter()
                .for_each(|finding| println!("    {finding}"));
            failed.push(seed);
        }
    }
    println!("{seeds} seeds, {happenings} happenings, {events} events in all logs; failed: {failed:?}");
    ExitCode::from(u8::from(!failed.is_empty()))
}
