//! What the upper layer looks like on disk after this and that.
