//! portcullis-recorder
