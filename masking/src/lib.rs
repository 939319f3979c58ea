//! portcullis-masking
