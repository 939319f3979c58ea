//! portcullis-bench
