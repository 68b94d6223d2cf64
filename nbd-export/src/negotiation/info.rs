//! The options that tell a client about exports and metadata contexts.

use super::{Negotiation, Progress};
use crate::Exports;
use crate::wire::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, decode_info_request, decode_meta_query,
    encode_info_block_sizes, encode_info_export, encode_info_text, encode_meta_context,
    encode_option_reply, encode_server, info, opt, rep,
};

impl Negotiation {
    pub(super) fn list(&mut self, exports: &dyn Exports, out: &mut Vec<u8>) {
        let names = exports.list();
        if !self.listed {
            self.listed = true;
            let more = names.len().saturating_mul(Self::OPTIONS_PER_EXPORT);
            self.budget = self.budget.saturating_add(more);
        }
        for name in names {
            encode_server(out, opt::LIST, &name);
        }
        encode_option_reply(out, opt::LIST, rep::ACK, &[]);
    }

    /// `INFO` and `GO`, which differ in what follows only.
    pub(super) fn info(
        &mut self,
        option: u32,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Progress {
        let Ok(request) = decode_info_request(data) else {
            encode_option_reply(out, option, rep::ERR_INVALID, &[]);
            return Progress::Continue;
        };
        let Some(export) = exports.describe(request.name) else {
            encode_option_reply(out, option, rep::ERR_UNKNOWN, &[]);
            return Progress::Continue;
        };
        let flags = export.transmission_flags(self.structured);
        encode_info_export(out, option, export.limits.size, flags);
        // Sent to those who did not ask, too: a client that looks at it cannot be surprised by a
        // refusal of unaligned requests later.
        encode_info_block_sizes(out, option, export.block_sizes());
        if request.kinds.contains(&info::NAME) {
            encode_info_text(out, option, info::NAME, &export.name);
        }
        if request.kinds.contains(&info::DESCRIPTION) && !export.description.is_empty() {
            encode_info_text(out, option, info::DESCRIPTION, &export.description);
        }
        encode_option_reply(out, option, rep::ACK, &[]);
        if option == opt::GO {
            self.chosen(request.name, export)
        } else {
            Progress::Continue
        }
    }

    pub(super) fn list_meta_context(
        &mut self,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) {
        let option = opt::LIST_META_CONTEXT;
        let reply = match decode_meta_query(data) {
            _ if !self.structured => rep::ERR_INVALID,
            Err(_) => rep::ERR_INVALID,
            Ok(query) if exports.describe(query.name).is_none() => rep::ERR_UNKNOWN,
            Ok(query) => {
                let all = query.queries.is_empty();
                if all
                    || query
                        .queries
                        .iter()
                        .any(|q| ["base:", BASE_ALLOCATION].contains(q))
                {
                    // The number means nothing in a list.
                    encode_meta_context(out, option, 0, BASE_ALLOCATION);
                }
                rep::ACK
            }
        };
        encode_option_reply(out, option, reply, &[]);
    }

    /// Replaces what was chosen before, also where it fails.
    pub(super) fn set_meta_context(
        &mut self,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) {
        let option = opt::SET_META_CONTEXT;
        self.context_for = None;
        let reply = match decode_meta_query(data) {
            _ if !self.structured => rep::ERR_INVALID,
            Err(_) => rep::ERR_INVALID,
            Ok(query) if exports.describe(query.name).is_none() => rep::ERR_UNKNOWN,
            Ok(query) => {
                if query.queries.contains(&BASE_ALLOCATION) {
                    encode_meta_context(out, option, BASE_ALLOCATION_ID, BASE_ALLOCATION);
                    self.context_for = Some(query.name.to_owned());
                }
                rep::ACK
            }
        };
        encode_option_reply(out, option, reply, &[]);
    }
}
