{
  description = "Espalier: an MLOps monorepo";

  # To bump: nix flake update, then nix flake check and ./pants quickstart --fresh inside the shell.
  # docs/development.md says what this file pins and what the Python locks pin.
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    # The last release with CPython 3.9, on which Pants 2.17 runs.
    nixpkgs-python39.url = "github:NixOS/nixpkgs/nixos-25.05";
  };

  outputs =
    {
      self,
      nixpkgs,
      nixpkgs-python39,
    }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      forEach =
        make:
        lib.genAttrs systems (
          system: make system nixpkgs.legacyPackages.${system} nixpkgs-python39.legacyPackages.${system}
        );

      # Wheels from PyPI expect libstdc++ and zlib where a usual Linux has them. An LD_LIBRARY_PATH
      # for the whole shell would reach every program in it; here the interpreter itself loads the
      # two, and the loader takes a library that is there already for each wheel that asks for it.
      forWheels =
        pkgs: python: name:
        if (pkgs.stdenv.hostPlatform.isLinux or false) then
          pkgs.runCommand "${name}-for-wheels" { nativeBuildInputs = [ pkgs.patchelf ]; } ''
            mkdir -p $out/bin
            ln -s ${python}/lib $out/lib
            ln -s ${python}/include $out/include
            install -m 755 ${python}/bin/${name} $out/bin/${name}
            patchelf --add-needed libstdc++.so.6 --add-needed libz.so.1 \
              --add-rpath ${pkgs.stdenv.cc.cc.lib}/lib:${pkgs.zlib}/lib $out/bin/${name}
          ''
        else
          python;

      # What runs the stack; Python itself and its libraries are the locks' business.
      tools =
        pkgs: with pkgs; [
          postgresql_16
          prometheus
          # promtool is an output of its own.
          (prometheus.cli or prometheus)
          prometheus-alertmanager
          grafana
          process-compose
          grpcurl
          buf
          git
        ];
      # What ./pants finds on PATH, before any that the host has.
      interpreters = pkgs: older: [
        (forWheels pkgs pkgs.python311 "python3.11")
        (forWheels older older.python39 "python3.9")
      ];
      environment = pkgs: older: interpreters pkgs older ++ tools pkgs;
    in
    {
      devShells = forEach (
        system: pkgs: older: {
          # `process-compose up` finds its files by .pc_env, in this shell and without it.
          default = pkgs.mkShell { packages = environment pkgs older; };
        }
      );

      apps = forEach (
        system: pkgs: older:
        let
          # Runs in the checkout that the command is typed in, not in a copy of it in the store.
          inCheckout =
            name: description: command:
            {
              type = "app";
              meta = { inherit description; };
              program = "${
                pkgs.writeShellScriptBin name ''
                  set -euo pipefail
                  if [ ! -x ./pants ]; then
                    echo "${name}: no ./pants here; run it at the root of a checkout" >&2
                    exit 2
                  fi
                  export PATH=${builtins.concatStringsSep ":" (
                    map (tool: "${tool}/bin") (environment pkgs older)
                  )}:$PATH
                  ${command}
                ''
              }/bin/${name}";
            };
        in
        {
          quickstart =
            inCheckout "quickstart" "the whole loop on this machine"
              ''exec ./pants quickstart "$@"'';
          test = inCheckout "test" "all tests" ''exec ./pants test :: "$@"'';
          up = inCheckout "up" "the whole stack on this machine" ''exec process-compose up "$@"'';
        }
      );

      checks = forEach (
        system: pkgs: _: {
          # The shell's programs are there and are what the stack expects.
          tools = pkgs.runCommand "espalier-tools" { nativeBuildInputs = tools pkgs; } ''
            for program in postgres initdb prometheus promtool alertmanager amtool process-compose grpcurl buf git; do
              command -v "$program" || { echo "$program is missing" >&2; exit 1; }
            done
            touch $out
          '';
        }
      );

      formatter = forEach (_: pkgs: _: pkgs.nixfmt-rfc-style);
    };
}
