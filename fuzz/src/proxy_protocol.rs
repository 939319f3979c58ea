//! The PROXY protocol header: what is whole stays what it is behind any rest, and every
//! beginning of it asks for more.

#[allow(dead_code)]
#[path = "../../core/gateway/src/serve/proxy_protocol.rs"]
mod header;

/// Input: the first bytes of a connection.
pub fn run(data: &[u8]) {
    match header::parse(data) {
        Ok(Some(found)) => {
            assert!(found.length <= data.len());
            assert_eq!(header::parse(&data[..found.length]), Ok(Some(found)));
            for cut in [0, 1, 11, 12, 15, 16] {
                if let Ok(Some(earlier)) = header::parse(&data[..cut.min(data.len())]) {
                    assert!(earlier.length <= cut);
                }
            }
            let length = header::parse(data).ok().flatten().map_or(0, |h| h.length);
            for cut in 0..length {
                assert_eq!(header::parse(&data[..cut]), Ok(None), "cut at {cut}");
            }
        }
        Ok(None) => {
            assert!(data.len() < 16 + header::REST_BYTES_MAX);
            for cut in 0..data.len() {
                assert_eq!(header::parse(&data[..cut]), Ok(None), "cut at {cut}");
            }
        }
        Err(error) => {
            let mut longer = data.to_vec();
            longer.extend([0; 40]);
            assert_eq!(header::parse(&longer), Err(error), "an error is for good");
        }
    }
}
