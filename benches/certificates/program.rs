//! The real program over the stock: started, asked, left alone, ended.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::stock::{self, Stock};
use crate::{client, median, part};

/// Names whose first handshake is measured.
const COLD_NAMES: usize = 500;
/// Until everything that a start leaves for later is done.
const SETTLING: Duration = Duration::from_secs(15);
/// How long it is left alone and its processor time counted.
const IDLE: Duration = Duration::from_secs(30);
/// A start that takes longer has failed.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Processor time in /proc is in hundredths of a second, whatever the kernel's own clock (proc_pid_stat(5)).
const TICKS_PER_SEC: f64 = 100.;

pub struct Program {
    pub first_handshake_ms: f64,
    pub resident_mib: f64,
    pub resident_later_mib: f64,
    pub cold_over_warm_ms: f64,
    pub cold_over_warm_p99_ms: f64,
    pub idle_percent: f64,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Program {
    pub fn measure(stock: &Stock, run: usize) -> Self {
        let config = client::config(stock);
        let (address, path) = stock.configuration(client::origin());
        let first = run * 31 % stock::DOMAINS;
        let began = Instant::now();
        let running = Command::new(env!("CARGO_BIN_EXE_lockgate"))
            .arg("run")
            .arg("-c")
            .arg(path)
            .stdout(Stdio::null())
            .stderr(fs::File::create(stock.dir.join(format!("run-{run}.log"))).unwrap())
            .spawn()
            .map(Running)
            .unwrap();
        while let Err(error) = client::connect(address, &config, first) {
            assert!(began.elapsed() < START_PATIENCE, "no handshake: {error}");
            std::thread::sleep(Duration::from_millis(1));
        }
        let first_handshake_ms = began.elapsed().as_secs_f64() * 1000.;
        let resident_mib = running.resident_mib();

        std::thread::sleep(SETTLING);
        let began = running.processor_secs();
        std::thread::sleep(IDLE);
        let idle_percent = (running.processor_secs() - began) / IDLE.as_secs_f64() * 100.;
        let resident_later_mib = running.resident_mib();

        let handshake_ms = |i| client::handshake_ms(address, &config, i);
        let names = (1..=COLD_NAMES).map(|i| (first + i * 97) % stock::DOMAINS);
        let differences: Vec<f64> = names.map(|i| handshake_ms(i) - handshake_ms(i)).collect();
        let it = Self {
            first_handshake_ms,
            resident_mib,
            resident_later_mib,
            cold_over_warm_ms: median(differences.iter().copied()),
            cold_over_warm_p99_ms: part(differences.into_iter(), 0.99),
            idle_percent,
        };
        println!(
            "run {run}: start {first_handshake_ms:.0} ms, {resident_mib:.0} MiB, later {resident_later_mib:.0} MiB, idle \
             {idle_percent:.2} %, cold {:.2} ms, p99 {:.2} ms",
            it.cold_over_warm_ms, it.cold_over_warm_p99_ms
        );
        it
    }
}

impl Running {
    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap()
    }

    fn resident_mib(&self) -> f64 {
        let status = self.proc("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        resident.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.
    }

    /// In the user's and the system's mode together.
    fn processor_secs(&self) -> f64 {
        let stat = self.proc("stat");
        // The name, in parentheses, may hold spaces; what follows are fields 3 and on.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS_PER_SEC
    }
}
