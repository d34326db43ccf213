#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| maru_tests::fuzz::websocket_frames(input));
