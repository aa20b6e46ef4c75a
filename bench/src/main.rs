//! The program `flotilla-bench`: reads its command line and runs a bench.

use clap::{Args, Parser, Subcommand};
use flotilla_bench::BenchError;
use flotilla_bench::check::{self, Check};
use flotilla_bench::competitors::{self, raw};
use flotilla_bench::harness::{self, Outcome, Plan, Run};
use flotilla_bench::machine::Machine;
use flotilla_bench::measure::Timing;
use flotilla_bench::report::Report;
use flotilla_bench::target::Competitor;
use flotilla_bench::workload::{Workload, catalogue};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Names the build of Flotilla; set by `flotilla bench`, which runs this program.
const SERVER_VARIABLE: &str = "FLOTILLA_BENCH_SERVER";

/// Runs the same workloads against Flotilla, other brokers, and the limits of the machine.
#[derive(Parser)]
#[command(name = "flotilla-bench", version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs workloads in interleaved rounds, and writes a report
    Run(RunOptions),
    /// Runs every kind of workload for a moment, to see that competitors work
    Smoke(Common),
    /// Compares two builds of Flotilla; fails if the new one is proved worse
    Check(CheckOptions),
    /// Lists workloads and competitors
    List(Common),
    /// Answers whatever is sent: a part of the limits that are measured
    #[command(hide = true)]
    Echo {
        over: raw::Echo,
        address: SocketAddr,
    },
}

#[derive(Args)]
struct Common {
    /// The build of Flotilla
    #[arg(long, env = SERVER_VARIABLE, default_value = "target/release/flotilla")]
    flotilla: PathBuf,
    /// Where the data of runs lies while they run: on the disk that is to be measured
    #[arg(long, default_value = "target/bench/data")]
    directory: PathBuf,
    /// Competitors to run, in this order; all that are installed if none is named
    #[arg(long = "competitor", value_delimiter = ',')]
    competitors: Vec<String>,
}

#[derive(Args)]
struct RunOptions {
    #[command(flatten)]
    common: Common,
    /// All workloads instead of the four main ones
    #[arg(long)]
    full: bool,
    /// Workloads to run; a name that ends with '-' stands for all that begin so
    #[arg(long = "workload", value_delimiter = ',')]
    workloads: Vec<String>,
    /// How often each competitor has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// How long a run is
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// How long it warms up before
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,
    /// How much is stored before a recovery is measured
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1024))]
    recovery_gib: u64,
    /// Where bench.json, bench.md and bench.svg are written
    #[arg(long, default_value = "target/bench/results")]
    out: PathBuf,
}

#[derive(Args)]
struct CheckOptions {
    /// The build that is known to be good
    #[arg(long)]
    old: PathBuf,
    /// The build that is to be no worse
    #[arg(long, env = SERVER_VARIABLE, default_value = "target/release/flotilla")]
    new: PathBuf,
    /// How often the two are compared at each workload
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pairs: u16,
    /// How long a run is
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    #[arg(long, default_value = "target/bench/data")]
    directory: PathBuf,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds are a number from 0.01 to 3600".to_owned()),
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("could not start a runtime: {error}")),
    };
    let result = runtime.block_on(async {
        tokio::select! {
            result = command(options.command) => result,
            // Dropping what runs kills its processes.
            _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        }
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => failed(&text),
    }
}

fn failed(text: &str) -> ExitCode {
    eprintln!("flotilla-bench: {text}");
    ExitCode::FAILURE
}

/// Whether all went well.
async fn command(command: Command) -> Result<bool, String> {
    match command {
        Command::Run(options) => bench(options).await,
        Command::Smoke(common) => smoke(common).await,
        Command::Check(options) => check(options).await,
        Command::List(common) => {
            list(&common);
            Ok(true)
        }
        Command::Echo { over, address } => match raw::serve(over, address).await {
            Ok(()) => Ok(true),
            Err(error) => Err(error.to_string()),
        },
    }
}

async fn bench(options: RunOptions) -> Result<bool, String> {
    let competitors = chosen_competitors(&options.common)?;
    let plan = Plan {
        workloads: chosen_workloads(&options)?,
        competitors,
        rounds: options.rounds.into(),
        timing: timing(options.warm_up, options.seconds),
        directory: options.common.directory.clone(),
    };
    let report = run(plan).await?;
    report.write(&options.out).map_err(text)?;
    print!("{}", report.markdown());
    eprintln!("written to {}", options.out.display());
    Ok(report.count_failed() == 0)
}

async fn smoke(common: Common) -> Result<bool, String> {
    let plan = Plan {
        workloads: catalogue::smoke(),
        competitors: chosen_competitors(&common)?,
        rounds: 1,
        // A disk may take half a second for a single sync.
        timing: timing(1.0, 2.0),
        directory: common.directory,
    };
    let report = run(plan).await?;
    Ok(report.count_failed() == 0)
}

async fn run(plan: Plan) -> Result<Report, String> {
    std::fs::create_dir_all(&plan.directory)
        .map_err(BenchError::io(format!("make {}", plan.directory.display())))
        .map_err(text)?;
    let machine = Machine::look(&plan.directory);
    let runs = harness::run(&plan, tell).await;
    Ok(Report::new(&plan, machine, runs))
}

async fn check(options: CheckOptions) -> Result<bool, String> {
    let check = Check {
        old: options.old,
        new: options.new,
        pairs: options.pairs.into(),
        timing: timing(1.0, options.seconds),
        directory: options.directory,
    };
    let comparisons = check::run(&check, tell).await.map_err(text)?;
    print!("{}", check::table(&comparisons));
    Ok(!comparisons.iter().any(check::Comparison::is_bad))
}

fn text(error: BenchError) -> String {
    error.to_string()
}

fn timing(warm_up_seconds: f64, run_seconds: f64) -> Timing {
    Timing {
        warm_up: Duration::from_secs_f64(warm_up_seconds),
        run: Duration::from_secs_f64(run_seconds),
    }
}

/// One line for each run, as it is over.
fn tell(run: &Run) {
    let result = match &run.outcome {
        Outcome::Measured(sample) if sample.messages > 1 => {
            format!("{:.0} messages/s", sample.per_second())
        }
        Outcome::Measured(sample) => format!("{:.2} s", sample.seconds),
        Outcome::NotMeasured => "not measured".to_owned(),
        Outcome::NotSupported => "not supported".to_owned(),
        Outcome::Failed(text) => format!("failed: {text}"),
    };
    eprintln!(
        "{:<24} {:<18} round {:<2} {result}",
        run.workload,
        run.competitor,
        run.round + 1
    );
}

/// Those that are named, or all that are installed.
fn chosen_competitors(common: &Common) -> Result<Vec<Arc<dyn Competitor>>, String> {
    let all = competitors::all(&common.flotilla);
    if common.competitors.is_empty() {
        let installed = |competitor: &Arc<dyn Competitor>| match competitor.version() {
            Ok(_) => true,
            Err(error) => {
                eprintln!("{} is left out: {error}", competitor.name());
                false
            }
        };
        return Ok(all.into_iter().filter(installed).collect());
    }
    let find = |name: &String| {
        let found = all.iter().find(|competitor| competitor.name() == name);
        let Some(competitor) = found else {
            let names: Vec<&str> = all.iter().map(|competitor| competitor.name()).collect();
            return Err(format!(
                "there is no competitor {name:?}; there are: {}",
                names.join(", ")
            ));
        };
        competitor.version().map_err(text)?;
        Ok(competitor.clone())
    };
    common.competitors.iter().map(find).collect()
}

fn chosen_workloads(options: &RunOptions) -> Result<Vec<Workload>, String> {
    let all = catalogue::full(options.recovery_gib << 30);
    if options.workloads.is_empty() {
        return Ok(if options.full {
            all
        } else {
            catalogue::short()
        });
    }
    let is_meant = |workload: &Workload, name: &str| {
        workload.id == name || (name.ends_with('-') && workload.id.starts_with(name))
    };
    for name in &options.workloads {
        if !all.iter().any(|workload| is_meant(workload, name)) {
            let names: Vec<&str> = all.iter().map(|workload| workload.id.as_str()).collect();
            return Err(format!(
                "there is no workload {name:?}; there are: {}",
                names.join(", ")
            ));
        }
    }
    let chosen = all.into_iter().filter(|workload| {
        let mut names = options.workloads.iter();
        names.any(|name| is_meant(workload, name))
    });
    Ok(chosen.collect())
}

fn list(common: &Common) {
    println!("workloads (* in the short bench):");
    let short = catalogue::short();
    for workload in catalogue::full(8 << 30) {
        let mark = if short.contains(&workload) { '*' } else { ' ' };
        println!("{mark} {:<24} {}", workload.id, workload.title);
    }
    println!("competitors:");
    for competitor in competitors::all(&common.flotilla) {
        let version = competitor
            .version()
            .unwrap_or_else(|error| error.to_string());
        println!("  {:<24} {version}", competitor.name());
    }
}
