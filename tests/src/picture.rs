//! Pictures for tests.

/// A grey PNG, written by hand: one scan line after the other in a stored block.
#[must_use]
pub fn png(width: u32, height: u32) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                if crc & 1 == 1 {
                    crc >> 1 ^ 0xedb8_8320
                } else {
                    crc >> 1
                }
            })
        })
    };
    let chunk = |name: &[u8], data: &[u8]| {
        let body = [name, data].concat();
        [
            &(data.len() as u32).to_be_bytes()[..],
            &body,
            &crc(&body).to_be_bytes(),
        ]
        .concat()
    };
    let line = vec![0_u8; width as usize + 1];
    let pixels = line.repeat(height as usize);
    let (a, b) = pixels.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    let mut stream = vec![0x78, 1];
    let blocks = pixels.chunks(65535).count();
    for (n, block) in pixels.chunks(65535).enumerate() {
        let length = block.len() as u16;
        stream.push(u8::from(n + 1 == blocks));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    stream.extend((b << 16 | a).to_be_bytes());
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let signature = [0x89, b'P', b'N', b'G', 13, 10, 26, 10];
    [
        &signature[..],
        &chunk(b"IHDR", &head),
        &chunk(b"IDAT", &stream),
        &chunk(b"IEND", &[]),
    ]
    .concat()
}

/// Width and height in the head of a PNG.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn dimensions(png: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}
