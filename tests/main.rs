//! The one test binary of the service.
//!
//! One, because every further binary links SQLite, TLS and the HTTP server again. A new test
//! goes into the module whose line names its subject; a new module gets such a line.

// Databases, stores and servers for all of the tests; holds no test itself.
mod support;

// The way there and back, retention and names, on sound databases and an obedient store.
mod round_trip;

// A restored database takes its place: by hand over another, never over one that came meanwhile.
mod placing;

// Damaged backups and useless databases, each refused for its own reason.
mod damage;
mod unusable;

// What SQLite's own rules ask of a backup and a restore: journals, settings, names, rights.
mod sqlite_rules;

// A backup compared with the one before: emptied databases, unchanged ones, what a backup says.
mod emptied;

// Encrypted backups: what is stored of them, who can read them, what is refused.
mod encryption;

// Rolling deploys: which of several instances may add to the line of backups.
mod lease;

// Every stage of a backup and of a restore, each with everything that can go wrong there.
mod faults;

// The S3 protocol itself, over sockets: requests, retries, refusals, certificates, deadlines.
mod s3;

// The actors by their messages, on paused time: the gate, ticks, overlap, the stop.
mod actors;

// Many instances: each due a little later than its schedule says, always by the same.
mod jitter;

// A store that thousands of instances share, simulated second by second.
mod herd;

// Restore drills: the newest backup verified on a schedule, beside the backups and before a stop.
mod drill;

// A Rust program that carries the service inside: when its work starts, how it ends.
mod embed;

// What the supervisor does about actors that die, and about an app that does as it likes.
mod supervision;

// Months of service, app, store and clock under one seed, with the invariants after each event.
mod simulation;

// The binary as a process: its lines, its child, its signals, its exit codes.
mod process;

// Full, limited and read-only disks: what is refused, and that nothing is left behind.
mod disk;

// A folder as a store: what others may read of it, what shows of an upload.
mod folder;

// Every way in which an app can end, in front of an ordinary process and of PID 1.
mod children;

// SIGKILL at every step and at any moment, and what the next start makes of it.
mod kills;

// What people and machines do to a running service without meaning to.
mod robustness;

// What the service may take: time at the stop, memory at any size.
mod limits;

// The binary's routes, and whom it tells of a success.
mod http;

// Pings and the webhook: who hears of what, and that nobody waits for them.
mod notify;

// Commands before and after a backup: what they are told, what their failure means, that they end.
mod hooks;

// The status page: its files, its events, and what they tell of.
mod page;

// What strangers can do to the routes, and what the binary keeps to itself.
mod security;

// Where settings come from, which wins, what is refused.
mod config;

// What must hold whatever comes from outside: mutated names, files, archives, headers.
mod fuzz;

// The commands beside `run`.
mod commands;

// What the doctor finds, of databases and stores that are sound and that are not.
mod doctor;

// A restore by a person at a terminal, who chooses and confirms, and by a machine, which is never asked.
mod by_hand;

// What `docs/recovery.md` says is what `scripts/test-recovery.sh` runs.
mod recovery;

// What people deploy and install with: init and its files, dashboard, alerts, manual, --version.
mod deploy;

// What the program says when something is wrong, word for word.
mod words;

// The repository about itself: tables in the README, lengths of files, links.
mod tidy;
