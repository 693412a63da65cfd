//! Numbers of `nf_tables`' netlink interface (`include/uapi/linux/netfilter/nf_tables.h`, `nfnetlink.h`).

pub(crate) const SUBSYSTEM: u16 = 10;
pub(crate) const BATCH_BEGIN: u16 = 0x10;
pub(crate) const BATCH_END: u16 = 0x11;
pub(crate) const BATCH_GENID: u16 = 1;

pub(crate) const F_REQUEST: u16 = 1;
pub(crate) const F_ACK: u16 = 4;
pub(crate) const F_EXCL: u16 = 0x200;
pub(crate) const F_CREATE: u16 = 0x400;
pub(crate) const F_DUMP: u16 = 0x300;

/// Family `NFPROTO_INET`.
pub(crate) const INET: u8 = 1;

pub(crate) const fn message(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

pub(crate) mod msg {
    pub(crate) const NEW_TABLE: u16 = 0;
    pub(crate) const GET_TABLE: u16 = 1;
    pub(crate) const DEL_TABLE: u16 = 2;
    pub(crate) const NEW_CHAIN: u16 = 3;
    pub(crate) const GET_CHAIN: u16 = 4;
    pub(crate) const NEW_RULE: u16 = 6;
    pub(crate) const GET_RULE: u16 = 7;
    pub(crate) const NEW_SET: u16 = 9;
    pub(crate) const GET_SET: u16 = 10;
    pub(crate) const DEL_SET: u16 = 11;
    pub(crate) const NEW_ELEM: u16 = 12;
    pub(crate) const GET_ELEM: u16 = 13;
    pub(crate) const DEL_ELEM: u16 = 14;
    pub(crate) const NEW_GEN: u16 = 15;
    pub(crate) const GET_GEN: u16 = 16;
    pub(crate) const NEW_OBJ: u16 = 18;
    pub(crate) const GET_OBJ: u16 = 19;
    pub(crate) const DEL_OBJ: u16 = 20;
}

pub(crate) mod table {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
    pub(crate) const HANDLE: u16 = 4;
    pub(crate) const USERDATA: u16 = 6;
    pub(crate) const OWNER: u16 = 7;
    /// Kind `NFTNL_UDATA_TABLE_COMMENT`.
    pub(crate) const COMMENT: u8 = 0;
}

pub(crate) mod chain {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const HANDLE: u16 = 2;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const USERDATA: u16 = 12;
}

pub(crate) mod rule {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const EXPRESSIONS: u16 = 4;
}

pub(crate) mod set {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const KEY_TYPE: u16 = 4;
    pub(crate) const KEY_LEN: u16 = 5;
    pub(crate) const DATA_TYPE: u16 = 6;
    pub(crate) const DATA_LEN: u16 = 7;
    pub(crate) const DESC: u16 = 9;
    pub(crate) const ID: u16 = 10;
    pub(crate) const TIMEOUT: u16 = 11;
    pub(crate) const USERDATA: u16 = 13;
    pub(crate) const EXPR: u16 = 17;
    pub(crate) const EXPRESSIONS: u16 = 18;

    pub(crate) const DESC_SIZE: u16 = 1;
    pub(crate) const DESC_CONCAT: u16 = 2;
    pub(crate) const FIELD_LEN: u16 = 1;

    pub(crate) const F_INTERVAL: u32 = 0x4;
    pub(crate) const F_MAP: u32 = 0x8;
    pub(crate) const F_TIMEOUT: u32 = 0x10;
    pub(crate) const F_EVAL: u32 = 0x20;
    pub(crate) const F_CONCAT: u32 = 0x80;
    pub(crate) const F_EXPR: u32 = 0x100;

    /// Data type `NFT_DATA_VERDICT`.
    pub(crate) const VERDICTS: u32 = 0xffff_ff00;
}

pub(crate) mod elem {
    pub(crate) const LIST_TABLE: u16 = 1;
    pub(crate) const LIST_SET: u16 = 2;
    pub(crate) const LIST_ELEMENTS: u16 = 3;
    pub(crate) const KEY: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const EXPR: u16 = 7;
    pub(crate) const KEY_END: u16 = 10;
    pub(crate) const EXPRESSIONS: u16 = 11;
    pub(crate) const VALUE: u16 = 1;
    pub(crate) const VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const VERDICT_CHAIN: u16 = 2;
    /// Verdict `NFT_GOTO`.
    pub(crate) const GOTO: u32 = (-4_i32).cast_unsigned();
}

pub(crate) mod expr {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const LOOKUP_SET: u16 = 1;
    pub(crate) const LIMIT_RATE: u16 = 1;
    pub(crate) const LIMIT_UNIT: u16 = 2;
    pub(crate) const LIMIT_BURST: u16 = 3;
    pub(crate) const LIMIT_TYPE: u16 = 4;
    pub(crate) const LIMIT_FLAGS: u16 = 5;
    pub(crate) const LIMIT_PACKETS: u32 = 0;
    pub(crate) const LIMIT_BYTES: u32 = 1;
    /// Flag `NFT_LIMIT_F_INV`.
    pub(crate) const LIMIT_OVER: u32 = 1;
    pub(crate) const CONNLIMIT_COUNT: u16 = 1;
    pub(crate) const CONNLIMIT_FLAGS: u16 = 2;
    /// Flag `NFT_CONNLIMIT_F_INV`.
    pub(crate) const CONNLIMIT_OVER: u32 = 1;
    pub(crate) const COUNTER_BYTES: u16 = 1;
    pub(crate) const COUNTER_PACKETS: u16 = 2;
}

pub(crate) mod object {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const TYPE: u16 = 3;
    pub(crate) const DATA: u16 = 4;
    pub(crate) const CT_TIMEOUT: u32 = 7;
    pub(crate) const L3PROTO: u16 = 1;
    pub(crate) const L4PROTO: u16 = 2;
    pub(crate) const TIMEOUTS: u16 = 3;
}

/// Attribute `NFTA_LIST_ELEM`.
pub(crate) const LIST_ELEM: u16 = 1;
/// Attribute `NFTA_GEN_ID`.
pub(crate) const GEN_ID: u16 = 1;
/// Attribute `NFTA_GEN_PROC_PID`.
pub(crate) const GEN_PID: u16 = 2;
/// Attribute `NFTA_GEN_PROC_NAME`.
pub(crate) const GEN_NAME: u16 = 3;
