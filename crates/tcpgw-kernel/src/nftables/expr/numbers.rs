//! Numbers that the attributes of expressions hold, from `include/uapi/linux/netfilter/nf_tables.h` where no other name is given.

// Registers: the verdict, four of 16 bytes, and the same memory as sixteen of 4 bytes.
pub(super) const VERDICT: u32 = 0;
pub(super) const REG_1: u32 = 1;
pub(super) const REG32_00: u32 = 8;

pub(super) const CMP_EQ: u32 = 0;
pub(super) const CMP_NEQ: u32 = 1;
pub(super) const CMP_LTE: u32 = 3;
pub(super) const CMP_GT: u32 = 4;
pub(super) const CMP_GTE: u32 = 5;

pub(super) const META_PRIORITY: u32 = 2;
pub(super) const META_IIF: u32 = 4;
pub(super) const META_OIF: u32 = 5;
pub(super) const META_IIFNAME: u32 = 6;
pub(super) const META_OIFNAME: u32 = 7;
pub(super) const META_NFPROTO: u32 = 15;
pub(super) const META_L4PROTO: u32 = 16;

pub(super) const CT_STATE: u32 = 0;
pub(super) const CT_DIRECTION: u32 = 1;
pub(super) const CT_STATUS: u32 = 2;
pub(super) const CT_MARK: u32 = 3;
pub(super) const CT_EXPIRATION: u32 = 5;
pub(super) const CT_PROTOCOL: u32 = 10;
pub(super) const CT_PROTO_SRC: u32 = 11;
pub(super) const CT_PROTO_DST: u32 = 12;
pub(super) const CT_SRC_IP: u32 = 19;
pub(super) const CT_DST_IP: u32 = 20;
pub(super) const CT_SRC_IP6: u32 = 21;
pub(super) const CT_DST_IP6: u32 = 22;
pub(super) const CT_ID: u32 = 23;
pub(super) const ORIGINAL: u8 = 0;
pub(super) const REPLY: u8 = 1;
/// Status bit `IPS_DST_NAT`.
pub(super) const STATUS_DNAT: u32 = 32;
/// Status bit `IPS_ASSURED`.
pub(super) const STATUS_ASSURED: u32 = 4;

pub(super) const NETWORK_HEADER: u32 = 1;
pub(super) const TRANSPORT_HEADER: u32 = 2;
/// `NFT_PAYLOAD_INNER_HEADER`: what is behind the transport header.
pub(super) const INNER_HEADER: u32 = 3;

pub(super) const FIB_SADDR: u32 = 1;
pub(super) const FIB_DADDR: u32 = 2;
pub(super) const FIB_IIF: u32 = 8;
/// `NFTA_FIB_F_PRESENT`: only whether there is one.
pub(super) const FIB_PRESENT: u32 = 32;
pub(super) const FIB_OIF: u32 = 1;
pub(super) const FIB_ADDRTYPE: u32 = 3;
pub(super) const RTN_LOCAL: u32 = 2;

pub(super) const IPPROTO_TCP: u8 = 6;
/// The first interface of every network namespace.
pub(super) const LOOPBACK: u32 = 1;
pub(super) const FIN_SYN_RST_ACK: u8 = 0x17;
pub(super) const FIN_SYN_RST_PSH_ACK: u8 = 0x1f;
pub(super) const SYN: u8 = 0x02;
pub(super) const SYN_ACK: u8 = 0x12;
pub(super) const ACK: u8 = 0x10;

/// Operation `NFT_BYTEORDER_HTON`.
pub(super) const BYTEORDER_HTON: u32 = 1;
/// Operation `NFT_EXTHDR_OP_TCPOPT`.
pub(super) const TCP_OPTION: u32 = 1;
/// Option `TCPOPT_TIMESTAMP`.
pub(super) const TIMESTAMP: u8 = 8;

pub(super) const OBJECT_CT_TIMEOUT: u32 = 7;
pub(super) const DYNSET_UPDATE: u32 = 1;
pub(super) const DYNSET_DELETE: u32 = 2;
pub(super) const REJECT_TCP_RST: u32 = 1;

pub(super) const NF_DROP: u32 = 0;
pub(super) const NFT_JUMP: u32 = (-3_i32).cast_unsigned();
pub(super) const NFT_RETURN: u32 = (-5_i32).cast_unsigned();
