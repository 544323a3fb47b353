"""Published methods by name: one file each, one line here."""

METHODS: dict[str, str] = {
    "simclr": "medcl.methods.simclr:SimCLR",
}
