/* THE table of instructions: decoder, interpreter and tests are all made from it.
 *
 * X(name, mnemonic, format, match, mask, kind): an instruction word w is `name` when (w & mask) == match. No two
 * rows overlap, so their order means nothing (a test holds us to that). Compressed instructions are expanded to one of
 * these first. PSEUDO(name) are what a block holds besides: special cases and fused pairs that translation finds.
 *
 * kind: ALU    writes rd and does nothing else: to x0 it is a nop
 *       LOAD, STORE, BRANCH, JUMP as they say
 *       OTHER  may trap, or touch more than rd
 *       END    the block ends after it, since what follows may mean something else */
#pragma once

/* clang-format off */
#define OPS(X)  \
    /* RV64I */                                                                   \
    X(lui,            "lui",            U,    0x00000037, 0x0000007f, ALU)        \
    X(auipc,          "auipc",          U,    0x00000017, 0x0000007f, ALU)        \
    X(jal,            "jal",            J,    0x0000006f, 0x0000007f, JUMP)       \
    X(jalr,           "jalr",           I,    0x00000067, 0x0000707f, JUMP)       \
    X(beq,            "beq",            B,    0x00000063, 0x0000707f, BRANCH)     \
    X(bne,            "bne",            B,    0x00001063, 0x0000707f, BRANCH)     \
    X(blt,            "blt",            B,    0x00004063, 0x0000707f, BRANCH)     \
    X(bge,            "bge",            B,    0x00005063, 0x0000707f, BRANCH)     \
    X(bltu,           "bltu",           B,    0x00006063, 0x0000707f, BRANCH)     \
    X(bgeu,           "bgeu",           B,    0x00007063, 0x0000707f, BRANCH)     \
    X(lb,             "lb",             I,    0x00000003, 0x0000707f, LOAD)       \
    X(lh,             "lh",             I,    0x00001003, 0x0000707f, LOAD)       \
    X(lw,             "lw",             I,    0x00002003, 0x0000707f, LOAD)       \
    X(ld,             "ld",             I,    0x00003003, 0x0000707f, LOAD)       \
    X(lbu,            "lbu",            I,    0x00004003, 0x0000707f, LOAD)       \
    X(lhu,            "lhu",            I,    0x00005003, 0x0000707f, LOAD)       \
    X(lwu,            "lwu",            I,    0x00006003, 0x0000707f, LOAD)       \
    X(sb,             "sb",             S,    0x00000023, 0x0000707f, STORE)      \
    X(sh,             "sh",             S,    0x00001023, 0x0000707f, STORE)      \
    X(sw,             "sw",             S,    0x00002023, 0x0000707f, STORE)      \
    X(sd,             "sd",             S,    0x00003023, 0x0000707f, STORE)      \
    X(addi,           "addi",           I,    0x00000013, 0x0000707f, ALU)        \
    X(slti,           "slti",           I,    0x00002013, 0x0000707f, ALU)        \
    X(sltiu,          "sltiu",          I,    0x00003013, 0x0000707f, ALU)        \
    X(xori,           "xori",           I,    0x00004013, 0x0000707f, ALU)        \
    X(ori,            "ori",            I,    0x00006013, 0x0000707f, ALU)        \
    X(andi,           "andi",           I,    0x00007013, 0x0000707f, ALU)        \
    X(slli,           "slli",           SH6,  0x00001013, 0xfc00707f, ALU)        \
    X(srli,           "srli",           SH6,  0x00005013, 0xfc00707f, ALU)        \
    X(srai,           "srai",           SH6,  0x40005013, 0xfc00707f, ALU)        \
    X(addiw,          "addiw",          I,    0x0000001b, 0x0000707f, ALU)        \
    X(slliw,          "slliw",          SH5,  0x0000101b, 0xfe00707f, ALU)        \
    X(srliw,          "srliw",          SH5,  0x0000501b, 0xfe00707f, ALU)        \
    X(sraiw,          "sraiw",          SH5,  0x4000501b, 0xfe00707f, ALU)        \
    X(add,            "add",            R,    0x00000033, 0xfe00707f, ALU)        \
    X(sub,            "sub",            R,    0x40000033, 0xfe00707f, ALU)        \
    X(sll,            "sll",            R,    0x00001033, 0xfe00707f, ALU)        \
    X(slt,            "slt",            R,    0x00002033, 0xfe00707f, ALU)        \
    X(sltu,           "sltu",           R,    0x00003033, 0xfe00707f, ALU)        \
    X(xor,            "xor",            R,    0x00004033, 0xfe00707f, ALU)        \
    X(srl,            "srl",            R,    0x00005033, 0xfe00707f, ALU)        \
    X(sra,            "sra",            R,    0x40005033, 0xfe00707f, ALU)        \
    X(or,             "or",             R,    0x00006033, 0xfe00707f, ALU)        \
    X(and,            "and",            R,    0x00007033, 0xfe00707f, ALU)        \
    X(addw,           "addw",           R,    0x0000003b, 0xfe00707f, ALU)        \
    X(subw,           "subw",           R,    0x4000003b, 0xfe00707f, ALU)        \
    X(sllw,           "sllw",           R,    0x0000103b, 0xfe00707f, ALU)        \
    X(srlw,           "srlw",           R,    0x0000503b, 0xfe00707f, ALU)        \
    X(sraw,           "sraw",           R,    0x4000503b, 0xfe00707f, ALU)        \
    /* Zifencei, Zicsr, privileged */                                             \
    X(fence,          "fence",          I,    0x0000000f, 0x0000707f, OTHER)      \
    X(fence_i,        "fence.i",        I,    0x0000100f, 0x0000707f, END)        \
    X(ecall,          "ecall",          NONE, 0x00000073, 0xffffffff, END)        \
    X(ebreak,         "ebreak",         NONE, 0x00100073, 0xffffffff, END)        \
    X(sret,           "sret",           NONE, 0x10200073, 0xffffffff, END)        \
    X(mret,           "mret",           NONE, 0x30200073, 0xffffffff, END)        \
    X(wfi,            "wfi",            NONE, 0x10500073, 0xffffffff, END)        \
    X(sfence_w_inval, "sfence.w.inval", NONE, 0x18000073, 0xffffffff, END)        \
    X(sfence_inval_ir, "sfence.inval.ir", NONE, 0x18100073, 0xffffffff, END)      \
    X(sfence_vma,     "sfence.vma",     R,    0x12000073, 0xfe007fff, END)        \
    X(sinval_vma,     "sinval.vma",     R,    0x16000073, 0xfe007fff, END)        \
    X(csrrw,          "csrrw",          CSR,  0x00001073, 0x0000707f, OTHER)      \
    X(csrrs,          "csrrs",          CSR,  0x00002073, 0x0000707f, OTHER)      \
    X(csrrc,          "csrrc",          CSR,  0x00003073, 0x0000707f, OTHER)      \
    X(csrrwi,         "csrrwi",         CSR,  0x00005073, 0x0000707f, OTHER)      \
    X(csrrsi,         "csrrsi",         CSR,  0x00006073, 0x0000707f, OTHER)      \
    X(csrrci,         "csrrci",         CSR,  0x00007073, 0x0000707f, OTHER)      \
    /* M */                                                                       \
    X(mul,            "mul",            R,    0x02000033, 0xfe00707f, ALU)        \
    X(mulh,           "mulh",           R,    0x02001033, 0xfe00707f, ALU)        \
    X(mulhsu,         "mulhsu",         R,    0x02002033, 0xfe00707f, ALU)        \
    X(mulhu,          "mulhu",          R,    0x02003033, 0xfe00707f, ALU)        \
    X(div,            "div",            R,    0x02004033, 0xfe00707f, ALU)        \
    X(divu,           "divu",           R,    0x02005033, 0xfe00707f, ALU)        \
    X(rem,            "rem",            R,    0x02006033, 0xfe00707f, ALU)        \
    X(remu,           "remu",           R,    0x02007033, 0xfe00707f, ALU)        \
    X(mulw,           "mulw",           R,    0x0200003b, 0xfe00707f, ALU)        \
    X(divw,           "divw",           R,    0x0200403b, 0xfe00707f, ALU)        \
    X(divuw,          "divuw",          R,    0x0200503b, 0xfe00707f, ALU)        \
    X(remw,           "remw",           R,    0x0200603b, 0xfe00707f, ALU)        \
    X(remuw,          "remuw",          R,    0x0200703b, 0xfe00707f, ALU)        \
    /* A */                                                                       \
    X(lr_w,           "lr.w",           R,    0x1000202f, 0xf9f0707f, OTHER)      \
    X(sc_w,           "sc.w",           R,    0x1800202f, 0xf800707f, OTHER)      \
    X(amoswap_w,      "amoswap.w",      R,    0x0800202f, 0xf800707f, OTHER)      \
    X(amoadd_w,       "amoadd.w",       R,    0x0000202f, 0xf800707f, OTHER)      \
    X(amoxor_w,       "amoxor.w",       R,    0x2000202f, 0xf800707f, OTHER)      \
    X(amoand_w,       "amoand.w",       R,    0x6000202f, 0xf800707f, OTHER)      \
    X(amoor_w,        "amoor.w",        R,    0x4000202f, 0xf800707f, OTHER)      \
    X(amomin_w,       "amomin.w",       R,    0x8000202f, 0xf800707f, OTHER)      \
    X(amomax_w,       "amomax.w",       R,    0xa000202f, 0xf800707f, OTHER)      \
    X(amominu_w,      "amominu.w",      R,    0xc000202f, 0xf800707f, OTHER)      \
    X(amomaxu_w,      "amomaxu.w",      R,    0xe000202f, 0xf800707f, OTHER)      \
    X(lr_d,           "lr.d",           R,    0x1000302f, 0xf9f0707f, OTHER)      \
    X(sc_d,           "sc.d",           R,    0x1800302f, 0xf800707f, OTHER)      \
    X(amoswap_d,      "amoswap.d",      R,    0x0800302f, 0xf800707f, OTHER)      \
    X(amoadd_d,       "amoadd.d",       R,    0x0000302f, 0xf800707f, OTHER)      \
    X(amoxor_d,       "amoxor.d",       R,    0x2000302f, 0xf800707f, OTHER)      \
    X(amoand_d,       "amoand.d",       R,    0x6000302f, 0xf800707f, OTHER)      \
    X(amoor_d,        "amoor.d",        R,    0x4000302f, 0xf800707f, OTHER)      \
    X(amomin_d,       "amomin.d",       R,    0x8000302f, 0xf800707f, OTHER)      \
    X(amomax_d,       "amomax.d",       R,    0xa000302f, 0xf800707f, OTHER)      \
    X(amominu_d,      "amominu.d",      R,    0xc000302f, 0xf800707f, OTHER)      \
    X(amomaxu_d,      "amomaxu.d",      R,    0xe000302f, 0xf800707f, OTHER)      \
    /* F and D */                                                                 \
    X(flw,            "flw",            I,    0x00002007, 0x0000707f, OTHER)      \
    X(fld,            "fld",            I,    0x00003007, 0x0000707f, OTHER)      \
    X(fsw,            "fsw",            S,    0x00002027, 0x0000707f, OTHER)      \
    X(fsd,            "fsd",            S,    0x00003027, 0x0000707f, OTHER)      \
    X(fmadd_s,        "fmadd.s",        R4,   0x00000043, 0x0600007f, OTHER)      \
    X(fmsub_s,        "fmsub.s",        R4,   0x00000047, 0x0600007f, OTHER)      \
    X(fnmsub_s,       "fnmsub.s",       R4,   0x0000004b, 0x0600007f, OTHER)      \
    X(fnmadd_s,       "fnmadd.s",       R4,   0x0000004f, 0x0600007f, OTHER)      \
    X(fadd_s,         "fadd.s",         R,    0x00000053, 0xfe00007f, OTHER)      \
    X(fsub_s,         "fsub.s",         R,    0x08000053, 0xfe00007f, OTHER)      \
    X(fmul_s,         "fmul.s",         R,    0x10000053, 0xfe00007f, OTHER)      \
    X(fdiv_s,         "fdiv.s",         R,    0x18000053, 0xfe00007f, OTHER)      \
    X(fsqrt_s,        "fsqrt.s",        R,    0x58000053, 0xfff0007f, OTHER)      \
    X(fsgnj_s,        "fsgnj.s",        R,    0x20000053, 0xfe00707f, OTHER)      \
    X(fsgnjn_s,       "fsgnjn.s",       R,    0x20001053, 0xfe00707f, OTHER)      \
    X(fsgnjx_s,       "fsgnjx.s",       R,    0x20002053, 0xfe00707f, OTHER)      \
    X(fmin_s,         "fmin.s",         R,    0x28000053, 0xfe00707f, OTHER)      \
    X(fmax_s,         "fmax.s",         R,    0x28001053, 0xfe00707f, OTHER)      \
    X(feq_s,          "feq.s",          R,    0xa0002053, 0xfe00707f, OTHER)      \
    X(flt_s,          "flt.s",          R,    0xa0001053, 0xfe00707f, OTHER)      \
    X(fle_s,          "fle.s",          R,    0xa0000053, 0xfe00707f, OTHER)      \
    X(fcvt_w_s,       "fcvt.w.s",       R,    0xc0000053, 0xfff0007f, OTHER)      \
    X(fcvt_s_w,       "fcvt.s.w",       R,    0xd0000053, 0xfff0007f, OTHER)      \
    X(fcvt_wu_s,      "fcvt.wu.s",      R,    0xc0100053, 0xfff0007f, OTHER)      \
    X(fcvt_s_wu,      "fcvt.s.wu",      R,    0xd0100053, 0xfff0007f, OTHER)      \
    X(fcvt_l_s,       "fcvt.l.s",       R,    0xc0200053, 0xfff0007f, OTHER)      \
    X(fcvt_s_l,       "fcvt.s.l",       R,    0xd0200053, 0xfff0007f, OTHER)      \
    X(fcvt_lu_s,      "fcvt.lu.s",      R,    0xc0300053, 0xfff0007f, OTHER)      \
    X(fcvt_s_lu,      "fcvt.s.lu",      R,    0xd0300053, 0xfff0007f, OTHER)      \
    X(fclass_s,       "fclass.s",       R,    0xe0001053, 0xfff0707f, OTHER)      \
    X(fmadd_d,        "fmadd.d",        R4,   0x02000043, 0x0600007f, OTHER)      \
    X(fmsub_d,        "fmsub.d",        R4,   0x02000047, 0x0600007f, OTHER)      \
    X(fnmsub_d,       "fnmsub.d",       R4,   0x0200004b, 0x0600007f, OTHER)      \
    X(fnmadd_d,       "fnmadd.d",       R4,   0x0200004f, 0x0600007f, OTHER)      \
    X(fadd_d,         "fadd.d",         R,    0x02000053, 0xfe00007f, OTHER)      \
    X(fsub_d,         "fsub.d",         R,    0x0a000053, 0xfe00007f, OTHER)      \
    X(fmul_d,         "fmul.d",         R,    0x12000053, 0xfe00007f, OTHER)      \
    X(fdiv_d,         "fdiv.d",         R,    0x1a000053, 0xfe00007f, OTHER)      \
    X(fsqrt_d,        "fsqrt.d",        R,    0x5a000053, 0xfff0007f, OTHER)      \
    X(fsgnj_d,        "fsgnj.d",        R,    0x22000053, 0xfe00707f, OTHER)      \
    X(fsgnjn_d,       "fsgnjn.d",       R,    0x22001053, 0xfe00707f, OTHER)      \
    X(fsgnjx_d,       "fsgnjx.d",       R,    0x22002053, 0xfe00707f, OTHER)      \
    X(fmin_d,         "fmin.d",         R,    0x2a000053, 0xfe00707f, OTHER)      \
    X(fmax_d,         "fmax.d",         R,    0x2a001053, 0xfe00707f, OTHER)      \
    X(feq_d,          "feq.d",          R,    0xa2002053, 0xfe00707f, OTHER)      \
    X(flt_d,          "flt.d",          R,    0xa2001053, 0xfe00707f, OTHER)      \
    X(fle_d,          "fle.d",          R,    0xa2000053, 0xfe00707f, OTHER)      \
    X(fcvt_w_d,       "fcvt.w.d",       R,    0xc2000053, 0xfff0007f, OTHER)      \
    X(fcvt_d_w,       "fcvt.d.w",       R,    0xd2000053, 0xfff0007f, OTHER)      \
    X(fcvt_wu_d,      "fcvt.wu.d",      R,    0xc2100053, 0xfff0007f, OTHER)      \
    X(fcvt_d_wu,      "fcvt.d.wu",      R,    0xd2100053, 0xfff0007f, OTHER)      \
    X(fcvt_l_d,       "fcvt.l.d",       R,    0xc2200053, 0xfff0007f, OTHER)      \
    X(fcvt_d_l,       "fcvt.d.l",       R,    0xd2200053, 0xfff0007f, OTHER)      \
    X(fcvt_lu_d,      "fcvt.lu.d",      R,    0xc2300053, 0xfff0007f, OTHER)      \
    X(fcvt_d_lu,      "fcvt.d.lu",      R,    0xd2300053, 0xfff0007f, OTHER)      \
    X(fclass_d,       "fclass.d",       R,    0xe2001053, 0xfff0707f, OTHER)      \
    X(fmv_x_w,        "fmv.x.w",        R,    0xe0000053, 0xfff0707f, OTHER)      \
    X(fmv_w_x,        "fmv.w.x",        R,    0xf0000053, 0xfff0707f, OTHER)      \
    X(fmv_x_d,        "fmv.x.d",        R,    0xe2000053, 0xfff0707f, OTHER)      \
    X(fmv_d_x,        "fmv.d.x",        R,    0xf2000053, 0xfff0707f, OTHER)      \
    X(fcvt_s_d,       "fcvt.s.d",       R,    0x40100053, 0xfff0007f, OTHER)      \
    X(fcvt_d_s,       "fcvt.d.s",       R,    0x42000053, 0xfff0007f, OTHER)      \
    /* Zba, Zbb, Zbs */                                                           \
    X(add_uw,         "add.uw",         R,    0x0800003b, 0xfe00707f, ALU)        \
    X(sh1add,         "sh1add",         R,    0x20002033, 0xfe00707f, ALU)        \
    X(sh2add,         "sh2add",         R,    0x20004033, 0xfe00707f, ALU)        \
    X(sh3add,         "sh3add",         R,    0x20006033, 0xfe00707f, ALU)        \
    X(sh1add_uw,      "sh1add.uw",      R,    0x2000203b, 0xfe00707f, ALU)        \
    X(sh2add_uw,      "sh2add.uw",      R,    0x2000403b, 0xfe00707f, ALU)        \
    X(sh3add_uw,      "sh3add.uw",      R,    0x2000603b, 0xfe00707f, ALU)        \
    X(andn,           "andn",           R,    0x40007033, 0xfe00707f, ALU)        \
    X(orn,            "orn",            R,    0x40006033, 0xfe00707f, ALU)        \
    X(xnor,           "xnor",           R,    0x40004033, 0xfe00707f, ALU)        \
    X(max,            "max",            R,    0x0a006033, 0xfe00707f, ALU)        \
    X(maxu,           "maxu",           R,    0x0a007033, 0xfe00707f, ALU)        \
    X(min,            "min",            R,    0x0a004033, 0xfe00707f, ALU)        \
    X(minu,           "minu",           R,    0x0a005033, 0xfe00707f, ALU)        \
    X(rol,            "rol",            R,    0x60001033, 0xfe00707f, ALU)        \
    X(rolw,           "rolw",           R,    0x6000103b, 0xfe00707f, ALU)        \
    X(ror,            "ror",            R,    0x60005033, 0xfe00707f, ALU)        \
    X(rorw,           "rorw",           R,    0x6000503b, 0xfe00707f, ALU)        \
    X(bclr,           "bclr",           R,    0x48001033, 0xfe00707f, ALU)        \
    X(bext,           "bext",           R,    0x48005033, 0xfe00707f, ALU)        \
    X(binv,           "binv",           R,    0x68001033, 0xfe00707f, ALU)        \
    X(bset,           "bset",           R,    0x28001033, 0xfe00707f, ALU)        \
    X(slli_uw,        "slli.uw",        SH6,  0x0800101b, 0xfc00707f, ALU)        \
    X(rori,           "rori",           SH6,  0x60005013, 0xfc00707f, ALU)        \
    X(bclri,          "bclri",          SH6,  0x48001013, 0xfc00707f, ALU)        \
    X(bexti,          "bexti",          SH6,  0x48005013, 0xfc00707f, ALU)        \
    X(binvi,          "binvi",          SH6,  0x68001013, 0xfc00707f, ALU)        \
    X(bseti,          "bseti",          SH6,  0x28001013, 0xfc00707f, ALU)        \
    X(roriw,          "roriw",          SH5,  0x6000501b, 0xfe00707f, ALU)        \
    X(clz,            "clz",            R,    0x60001013, 0xfff0707f, ALU)        \
    X(ctz,            "ctz",            R,    0x60101013, 0xfff0707f, ALU)        \
    X(cpop,           "cpop",           R,    0x60201013, 0xfff0707f, ALU)        \
    X(clzw,           "clzw",           R,    0x6000101b, 0xfff0707f, ALU)        \
    X(ctzw,           "ctzw",           R,    0x6010101b, 0xfff0707f, ALU)        \
    X(cpopw,          "cpopw",          R,    0x6020101b, 0xfff0707f, ALU)        \
    X(sext_b,         "sext.b",         R,    0x60401013, 0xfff0707f, ALU)        \
    X(sext_h,         "sext.h",         R,    0x60501013, 0xfff0707f, ALU)        \
    X(zext_h,         "zext.h",         R,    0x0800403b, 0xfff0707f, ALU)        \
    X(orc_b,          "orc.b",          R,    0x28705013, 0xfff0707f, ALU)        \
    X(rev8,           "rev8",           R,    0x6b805013, 0xfff0707f, ALU)        \
    /* Zicbom, Zicboz (Zicbop are ori to x0, and so nothing) */                   \
    X(cbo_inval,      "cbo.inval",      R,    0x0000200f, 0xfff07fff, OTHER)      \
    X(cbo_clean,      "cbo.clean",      R,    0x0010200f, 0xfff07fff, OTHER)      \
    X(cbo_flush,      "cbo.flush",      R,    0x0020200f, 0xfff07fff, OTHER)      \
    X(cbo_zero,       "cbo.zero",       R,    0x0040200f, 0xfff07fff, OTHER)

#define PSEUDO_OPS(PSEUDO)                                                        \
    PSEUDO(nop)       /* writes to x0, hints */                                   \
    PSEUDO(li)        /* rd = imm: lui, addi from x0, lui+addi */                 \
    PSEUDO(mv)        /* addi 0 */                                                \
    PSEUDO(sext_w)    /* addiw 0 */                                               \
    PSEUDO(load_x0)   /* any integer load to x0 */                                \
    PSEUDO(j)         /* jal x0, inside the page */                               \
    PSEUDO(jal_near)                                                              \
    PSEUDO(jr)        /* jalr x0 */                                               \
    PSEUDO(beqz)                                                                  \
    PSEUDO(bnez)                                                                  \
    PSEUDO(bltz)                                                                  \
    PSEUDO(bgez)                                                                  \
    PSEUDO(call_far)  /* auipc+jalr through one register */                       \
    PSEUDO(la_ld)     /* auipc+ld through one register */                         \
    PSEUDO(la_lw)                                                                 \
    PSEUDO(slli_srli) /* zero-extension without Zba */                            \
    PSEUDO(slli_srai)                                                             \
    PSEUDO(addi_beq)  /* addi and a branch: how loops end */                      \
    PSEUDO(addi_bne)                                                              \
    PSEUDO(addi_bltu)                                                             \
    PSEUDO(addi_bgeu)                                                             \
    PSEUDO(addi_blt)                                                              \
    PSEUDO(addi_bge)                                                              \
    PSEUDO(andi_beqz)                                                             \
    PSEUDO(andi_bnez)                                                             \
    PSEUDO(addi_addi) /* two counters, or a pointer and a counter */              \
    PSEUDO(goto_next) /* the block was cut: goes on inside the page */            \
    PSEUDO(goto_far)  /* ... or in the next page */                               \
    PSEUDO(heat)      /* counts a block's executions, in front of it */               \
    PSEUDO(jit_return) /* behind an instruction that generated code asked for */  \
    PSEUDO(illegal)
/* clang-format on */
