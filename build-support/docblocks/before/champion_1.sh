# Version 2 was compared with version 1, so its evidence counts while that is champion.
dist/espalier.pex models rollback --to 1 --why "before the page's commands"
