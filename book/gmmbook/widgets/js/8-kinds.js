const kinds = { gaussian, landscape, mixture, scrubber, singularity };
