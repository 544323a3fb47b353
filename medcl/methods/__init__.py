"""Published methods by name: one file each, one line here."""

METHODS: dict[str, str] = {
    "simclr": "medcl.methods.simclr:SimCLR",
    "moco-v2": "medcl.methods.moco:MoCoV2",
    "moco-v3": "medcl.methods.moco:MoCoV3",
}
