#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    simplebackup_fuzz::lease(input);
});
