//! For each vCPU a list of other vCPUs. Each vCPU is in at most one list. Joining and leaving take
//! constant time and no memory.

use crate::ids::VcpuId;
use crate::normal_form::Writer;

/// One doubly linked list per vCPU, threaded through a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lists {
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// The head of the list that this vCPU is in.
    behind: Option<VcpuId>,
    next: Option<VcpuId>,
    previous: Option<VcpuId>,
    /// The first member of this vCPU's own list.
    first: Option<VcpuId>,
}

impl Lists {
    pub(crate) fn grow(&mut self, vcpus: usize) {
        self.nodes
            .resize(vcpus.max(self.nodes.len()), Node::default());
    }

    /// Puts `member` into the list of `head`, out of any other.
    pub(crate) fn join(&mut self, member: VcpuId, head: VcpuId) {
        self.leave(member);
        let next = self.nodes[head.index()].first.replace(member);
        if let Some(next) = next {
            self.nodes[next.index()].previous = Some(member);
        }
        let node = &mut self.nodes[member.index()];
        (node.behind, node.next, node.previous) = (Some(head), next, None);
    }

    /// Takes `member` out of the list that it is in, if any.
    pub(crate) fn leave(&mut self, member: VcpuId) {
        let node = &mut self.nodes[member.index()];
        let Some(head) = node.behind.take() else {
            return;
        };
        let (next, previous) = (node.next.take(), node.previous.take());
        if let Some(next) = next {
            self.nodes[next.index()].previous = previous;
        }
        match previous {
            Some(previous) => self.nodes[previous.index()].next = next,
            None => self.nodes[head.index()].first = next,
        }
    }

    /// The first member of the list of `head`.
    pub(crate) fn first(&self, head: VcpuId) -> Option<VcpuId> {
        self.nodes[head.index()].first
    }

    /// The member after `member` in its list.
    pub(crate) fn next(&self, member: VcpuId) -> Option<VcpuId> {
        self.nodes[member.index()].next
    }
}

impl Lists {
    /// Writes the normal form of the list of `head`.
    pub(crate) fn normalise(&self, head: VcpuId, to: &mut Writer) {
        let members = std::iter::successors(self.first(head), |&member| self.next(member));
        to.list(members, Writer::vcpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(lists: &Lists, head: u32) -> Vec<u32> {
        let first = lists.first(VcpuId(head));
        let mut all: Vec<u32> = std::iter::successors(first, |&m| lists.next(m))
            .map(|m| m.0)
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn members_leave_from_any_place_of_the_list() {
        for gone in 1..4 {
            let mut lists = Lists::default();
            lists.grow(4);
            for member in 1..4 {
                lists.join(VcpuId(member), VcpuId(0));
            }
            lists.leave(VcpuId(gone));
            lists.leave(VcpuId(gone));
            assert_eq!(
                members(&lists, 0),
                (1..4).filter(|&m| m != gone).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn any_two_members_leave_in_any_order() {
        for first in 1..5 {
            for second in (1..5).filter(|&second| second != first) {
                let mut lists = Lists::default();
                lists.grow(5);
                for member in 1..5 {
                    lists.join(VcpuId(member), VcpuId(0));
                }
                lists.leave(VcpuId(first));
                lists.leave(VcpuId(second));
                assert_eq!(
                    members(&lists, 0),
                    (1..5)
                        .filter(|&m| m != first && m != second)
                        .collect::<Vec<_>>(),
                    "{first}, then {second}"
                );
            }
        }
    }

    #[test]
    fn joining_another_list_leaves_the_first() {
        let mut lists = Lists::default();
        lists.grow(3);
        lists.join(VcpuId(2), VcpuId(0));
        lists.join(VcpuId(2), VcpuId(1));
        assert_eq!((members(&lists, 0), members(&lists, 1)), (vec![], vec![2]));
    }
}
