//! The options that tell a client about exports and metadata contexts.

use super::{Context, Negotiation, Progress};
use crate::Exports;
use crate::wire::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, MetaQuery, decode_info_request, decode_meta_query,
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
        let reply = match self.meta_query(data, exports) {
            Err(reply) => reply,
            Ok((query, contexts)) => {
                // `base:` asks for all of a namespace, `qemu:dirty-bitmap:` for all of a kind.
                let asked = |name: &str| {
                    let mut queries = query.queries.iter();
                    queries.any(|q| *q == name || q.ends_with(':') && name.starts_with(q))
                };
                let all = query.queries.is_empty();
                for context in contexts.iter().filter(|c| all || asked(&c.name)) {
                    // The number means nothing in a list.
                    encode_meta_context(out, option, 0, &context.name);
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
        self.chosen_contexts = None;
        let reply = match self.meta_query(data, exports) {
            Err(reply) => reply,
            Ok((query, mut contexts)) => {
                contexts.retain(|c| query.queries.contains(&c.name.as_str()));
                for context in &contexts {
                    encode_meta_context(out, option, context.id, &context.name);
                }
                self.chosen_contexts = Some((query.name.to_owned(), contexts));
                rep::ACK
            }
        };
        encode_option_reply(out, option, reply, &[]);
    }

    /// What a client asks about contexts, and those that its export has; or the error to answer.
    fn meta_query<'a>(
        &self,
        data: &'a [u8],
        exports: &dyn Exports,
    ) -> Result<(MetaQuery<'a>, Vec<Context>), u32> {
        if !self.structured {
            return Err(rep::ERR_INVALID);
        }
        let query = decode_meta_query(data).map_err(|_| rep::ERR_INVALID)?;
        let export = exports.describe(query.name).ok_or(rep::ERR_UNKNOWN)?;
        let names = std::iter::once(BASE_ALLOCATION.to_owned()).chain(export.contexts);
        let contexts = (BASE_ALLOCATION_ID..).zip(names);
        let contexts = contexts.map(|(id, name)| Context { id, name }).collect();
        Ok((query, contexts))
    }
}
