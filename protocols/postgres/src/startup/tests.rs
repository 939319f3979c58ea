//! Start-up packets: layouts, truncations, lying lengths.
