//! ringio
